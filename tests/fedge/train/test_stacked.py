"""Training together against training alone: the same updates within float tolerance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedge.arrays import Bool, Float32, Int64
from fedge.config import Augmentation, DataKind, OptimizerName, Task, TrainConfig
from fedge.data.dataset import DataInfo, Examples
from fedge.errors import DataError
from fedge.models.vector import params_of, spec_of
from fedge.runtime.preprocess import Normalization
from fedge.strategy import LocalSettings
from fedge.train.stacked import StackedUpdates, can_stack, train_stacked
from fedge.train.trainer import LocalUpdate, train_locally

INFO = DataInfo(
    "toy",
    DataKind.image,
    Task.classification,
    (1, 6, 6),
    4,
    ("a", "b", "c", "d"),
    Normalization(mean=(0.5,), std=(0.5,)),
)
# One step moves values by about 0.1; float32 has 7 digits, a few steps lose one or two.
TOLERANCE = 5e-6


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 4))


def mlp() -> nn.Module:
    layers = (nn.Linear(36, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 4))
    return nn.Sequential(nn.Flatten(), *layers)


def cnn() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 4)
    )
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def examples(seed: int, count: int) -> Examples:
    rng = np.random.default_rng(seed)
    features = rng.random((count, 1, 6, 6)).astype(np.float32)
    return Examples(features, rng.integers(0, 4, count))


def both_ways(
    model: nn.Module,
    counts: list[int],
    config: TrainConfig,
    *,
    proximal_mu: float = 0.0,
    mask: Bool | None = None,
) -> tuple[list[LocalUpdate], list[LocalUpdate]]:
    params = params_of(model, spec_of(model))
    data = [examples(seed, count) for seed, count in enumerate(counts)]
    local = LocalSettings(proximal_mu=proximal_mu)
    alone = [
        train_locally(
            model,
            params,
            mine,
            INFO,
            config,
            local=local,
            learning_rate=0.1,
            mask=mask,
            rng=np.random.default_rng([7, client]),
        )
        for client, mine in enumerate(data)
    ]
    together = train_stacked(
        model,
        params,
        *joined(data),
        INFO,
        config=config,
        local=local,
        learning_rate=0.1,
        mask=mask,
        rngs=[np.random.default_rng([7, client]) for client in range(len(data))],
    )
    return alone, [together.of(client) for client in range(len(data))]


def joined(data: list[Examples]) -> tuple[Examples, list[Int64]]:
    """Return all examples as one data set, in another order, and whose is which."""
    features = np.concatenate([mine.features for mine in data])
    targets = np.concatenate([mine.targets for mine in data])
    order = np.random.default_rng(3).permutation(len(targets))
    ends = np.cumsum([len(mine) for mine in data])[:-1]
    return Examples(features[order], targets[order]), np.split(np.argsort(order), ends)


def assert_equal(alone: list[LocalUpdate], together: list[LocalUpdate]) -> None:
    assert len(alone) == len(together) > 0
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.delta, one.delta, rtol=0, atol=TOLERANCE)
        assert np.abs(one.delta).max() > 100 * TOLERANCE
        assert other.loss == pytest.approx(one.loss, abs=1e-5)
        assert (other.num_examples, other.num_steps) == (
            one.num_examples,
            one.num_steps,
        )


@pytest.mark.parametrize("make", [linear, mlp, cnn])
@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(batch_size=5, epochs=2),
        TrainConfig(batch_size=5, epochs=1, momentum=0.9, weight_decay=0.01),
        TrainConfig(batch_size=4, steps=7),
        TrainConfig(batch_size=5, epochs=1, clip_norm=0.3),
        TrainConfig(batch_size=64, epochs=3),
    ],
    ids=["plain", "momentum", "steps", "clipped", "one batch"],
)
def test_together_is_alone(make: type[nn.Module], config: TrainConfig) -> None:
    torch.manual_seed(0)
    alone, together = both_ways(make(), [3, 10, 11, 1, 10], config)
    assert_equal(alone, together)


def test_together_is_alone_with_adam() -> None:
    torch.manual_seed(0)
    config = TrainConfig(
        optimizer=OptimizerName.adam, batch_size=5, epochs=2, learning_rate=0.01
    )
    alone, together = both_ways(mlp(), [12, 5, 20], config)
    for one, other in zip(alone, together, strict=True):
        # Adam divides by the root of the squared gradient: where that is nearly 0,
        # rounding is magnified, up to a share of one step (0.1).
        close = np.isclose(other.delta, one.delta, rtol=0, atol=1e-4)
        assert close.mean() > 0.99


def test_together_is_alone_with_a_proximal_term_and_a_mask() -> None:
    torch.manual_seed(0)
    model = mlp()
    spec = spec_of(model)
    mask = np.random.default_rng(1).random(spec.size) < 0.5
    params = params_of(model, spec)
    config = TrainConfig(batch_size=5, epochs=2)
    alone, together = both_ways(model, [7, 13], config, proximal_mu=0.5, mask=mask)
    assert_equal(alone, together)
    for update in together:
        assert not (params + update.delta)[~mask].any()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 23), min_size=1, max_size=6), st.integers(1, 7))
def test_clients_of_any_sizes_can_train_together(
    counts: list[int], batch_size: int
) -> None:
    torch.manual_seed(0)
    config = TrainConfig(batch_size=batch_size, epochs=2)
    alone, together = both_ways(linear(), counts, config)
    assert_equal(alone, together)


def test_what_belongs_to_one_client_alone_is_not_stacked() -> None:
    config = TrainConfig()
    assert can_stack(mlp(), config)
    assert not can_stack(mlp(), TrainConfig(augment=Augmentation.noise))
    assert not can_stack(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1)), config)
    assert not can_stack(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), config)
    assert not can_stack(nn.Sequential(nn.GRU(4, 4)), config)


def test_a_client_without_examples_is_refused() -> None:
    with pytest.raises(DataError, match="no examples"):
        both_stacked([examples(0, 3), examples(1, 0)])


def test_a_model_that_diverges_is_refused() -> None:
    huge = Examples(np.full((4, 1, 6, 6), 1e38, np.float32), np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="not finite"):
        both_stacked([examples(0, 3), huge])


def both_stacked(data: list[Examples]) -> StackedUpdates:
    model = linear()
    params: Float32 = params_of(model, spec_of(model))
    rngs = [np.random.default_rng(client) for client in range(len(data))]
    return train_stacked(
        model,
        params,
        *joined(data),
        INFO,
        config=TrainConfig(batch_size=2),
        local=LocalSettings(),
        learning_rate=1.0,
        mask=None,
        rngs=rngs,
    )
