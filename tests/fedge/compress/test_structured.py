"""Smaller networks: what is left is what mattered, and the outputs stay whole."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedge.arrays import AnyArray, Float32
from fedge.compress.structured import check_removable, narrowed
from fedge.config import DataKind, ModelConfig, ModelName, Task
from fedge.data.dataset import DataInfo
from fedge.errors import CompressionError
from fedge.models.build import build_model
from fedge.models.resize import shapes_of
from fedge.runtime.preprocess import Normalization

IMAGES = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
TOKENS = np.arange(12).reshape(2, 6) % 7


def cnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 12, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 64, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


class Recurrent(nn.Module):
    """Embedding, two recurrent layers, output; as the reference model is."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.first = kind(6, 10, batch_first=True)
        self.second = kind(10, 8, batch_first=True)
        self.output = nn.Linear(8, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        state = self.embedding(tokens)
        state = self.second(self.first(state)[0])[0]
        outputs: Tensor = self.output(state)
        return outputs


def gru() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent(nn.GRU)


def lstm() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent(nn.LSTM)


class Attentive(nn.Module):
    """Torch's own attention between layers, and a feed-forward part; residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.wide = nn.Linear(8, 24)
        self.thin = nn.Linear(24, 8)
        self.output = nn.Linear(8, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        state = self.embedding(tokens)
        state = state + self.attention(state, state, state, need_weights=False)[0]
        state = state + self.thin(self.wide(state).relu())
        outputs: Tensor = self.output(state)
        return outputs


def transformer() -> nn.Module:
    info = DataInfo(
        "text", DataKind.text, Task.next_token, (6,), 7, (), Normalization()
    )
    config = ModelConfig(name=ModelName.transformer, widths=[24, 16], hidden=8)
    return build_model(config, info, seed=0)


@pytest.mark.parametrize("make", [Attentive, transformer])
def test_attention_and_what_it_reads_and_writes_stay_whole(
    make: type[nn.Module],
) -> None:
    model = make()
    before, after = shapes_of(model), shapes_of(narrowed(model, TOKENS, share=0.5))
    changed = {name for name in before if before[name] != after[name]}
    feed_forward = ("wide", "thin.weight", "feed_forward.1", "feed_forward.3.weight")
    assert changed == {n for n in before if any(part in n for part in feed_forward)}
    for name in changed:
        old, new = before[name], after[name]
        assert sorted(a / b for a, b in zip(new, old, strict=True))[0] == 0.5
        assert sum(a != b for a, b in zip(new, old, strict=True)) == 1


def run(model: nn.Module, inputs: AnyArray) -> Float32:
    with torch.no_grad():
        outputs: Float32 = model.eval()(torch.from_numpy(inputs)).numpy()
    return outputs


def size_of(model: nn.Module) -> int:
    return sum(part.numel() for part in model.parameters())


@pytest.mark.parametrize(
    ("make", "inputs"), [(cnn, IMAGES), (gru, TOKENS), (lstm, TOKENS)]
)
def test_half_of_the_channels_is_about_a_quarter_of_the_weights(
    make: type[nn.Module], inputs: AnyArray
) -> None:
    model = make()
    before = [part.detach().clone() for part in model.parameters()]
    smaller = narrowed(model, inputs, share=0.5)
    assert run(smaller, inputs).shape == run(model, inputs).shape
    assert 0.15 * size_of(model) < size_of(smaller) < 0.5 * size_of(model)
    for old, now in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(now.detach(), old, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("make", [gru, lstm])
def test_hidden_units_that_do_nothing_go_first(make: type[nn.Module]) -> None:
    model = make()
    silence(model, units=[1, 4, 5, 8, 9])
    smaller = narrowed(model, TOKENS, share=0.5)
    assert isinstance(smaller, Recurrent)
    assert smaller.first.hidden_size == 5
    # The second layer lost half of its units too; give it the same treatment.
    expected = first_states(model)[:, :, [0, 2, 3, 6, 7]]
    np.testing.assert_allclose(first_states(smaller), expected, rtol=0, atol=1e-6)


def silence(model: nn.Module, *, units: list[int]) -> None:
    """Cut all connections of some units of the first layer."""
    assert isinstance(model, Recurrent)
    layer = model.first
    gates = len(layer.get_parameter("weight_hh_l0")) // layer.hidden_size
    with torch.no_grad():
        rows = [g * layer.hidden_size + unit for g in range(gates) for unit in units]
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(layer, name)[rows] = 0.0
        layer.get_parameter("weight_hh_l0")[:, units] = 0.0
        model.second.get_parameter("weight_ih_l0")[:, units] = 0.0


def first_states(model: nn.Module) -> Float32:
    assert isinstance(model, Recurrent)
    with torch.no_grad():
        embedded = model.embedding(torch.from_numpy(TOKENS))
        states: Float32 = model.first(embedded)[0].numpy()
    return states


def test_equal_models_become_equal_smaller_ones() -> None:
    one, other = (narrowed(cnn(), IMAGES, share=0.3) for _ in range(2))
    assert np.array_equal(run(one, IMAGES), run(other, IMAGES))


@pytest.mark.parametrize(
    ("make", "inputs"), [(cnn, IMAGES), (gru, TOKENS), (lstm, TOKENS)]
)
def test_a_multiple_of_the_channels_is_left(
    make: type[nn.Module], inputs: AnyArray
) -> None:
    smaller = narrowed(make(), inputs, share=0.6, multiple=4)
    hidden = {
        len(part) for name, part in smaller.named_parameters() if "weight" in name
    }
    assert hidden - {5, 7} <= {4, 8, 12, 16, 24}
    assert run(smaller, inputs).shape == run(make(), inputs).shape


def test_a_model_without_hidden_channels_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(CompressionError, match="none of 325 parameters"):
        check_removable(model, IMAGES, share=0.5)
    with pytest.raises(CompressionError, match="channel_multiple"):
        check_removable(cnn(), IMAGES, share=0.5, multiple=64)


def test_what_cannot_be_sliced_is_refused() -> None:
    deep = nn.Sequential(nn.Embedding(7, 6), nn.GRU(6, 4, num_layers=2))
    with pytest.raises(CompressionError, match="GRU in a recurrent network"):
        narrowed(deep, TOKENS, share=0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="not in"):
        narrowed(cnn(), IMAGES, share=share)


def test_a_multiple_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        narrowed(cnn(), IMAGES, share=0.5, multiple=0)


@pytest.mark.parametrize(
    ("make", "inputs"), [(cnn, IMAGES), (gru, TOKENS), (lstm, TOKENS)]
)
def test_many_small_steps_end_where_one_large_step_does(
    make: type[nn.Module], inputs: AnyArray
) -> None:
    built = shapes_of(make())
    once = narrowed(make(), inputs, share=0.6, multiple=2)
    stepwise = make()
    for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        stepwise = narrowed(stepwise, inputs, share=share, multiple=2, built=built)
    assert shapes_of(stepwise) == shapes_of(once)
    assert shapes_of(once) != built
