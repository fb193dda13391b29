"""Graphs train as PyTorch does, or are not made; the message says why."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedge.arrays import Bool
from fedge.config import (
    Augmentation,
    DataKind,
    OptimizerName,
    Precision,
    Task,
    TrainConfig,
)
from fedge.data.dataset import DataInfo, Examples
from fedge.data.inputs import inputs_of
from fedge.errors import CompressionError, DataError, PeerError, VerificationError
from fedge.models.vector import spec_of
from fedge.runtime.graph import Graph, GraphKind, load_graph
from fedge.runtime.local import LocalUpdate
from fedge.runtime.preprocess import Normalization
from fedge.runtime.training import evaluate_on_graph, train_on_graph
from fedge.strategy import LocalSettings
from fedge.train.evaluate import evaluate
from fedge.train.graphs import (
    check_training,
    made_up_params,
    make_evaluation_graph,
    make_training_graph,
)
from fedge.train.trainer import train_locally

IMAGES = DataInfo(
    "made-up", DataKind.image, Task.classification, (2, 6, 6), 3, ("a", "b", "c"),
    Normalization((0.5,), (2.0,)),
)  # fmt: skip
TABLE = DataInfo(
    "line", DataKind.table, Task.regression, (3,), 1, (), Normalization((0.0,), (1.0,))
)
SGD = TrainConfig(weight_decay=0.01, clip_norm=0.5, batch_size=8)
ADAM = TrainConfig(
    optimizer=OptimizerName.adam, learning_rate=0.01, batch_size=8, momentum=0.5
)


def make_net() -> nn.Sequential:
    """Stride, groups, overlapping pooling, statistics, a layer that nobody trains."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(4, 4, 2, groups=2, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Dropout(0.0),
        nn.Linear(4, 3),
    )
    net.get_parameter("7.bias").requires_grad_(False)
    return net


def make_line() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def make_examples(info: DataInfo, count: int) -> Examples:
    rng = np.random.default_rng(count)
    features = rng.standard_normal((count, *info.input_shape), np.float32)
    if info.task is Task.regression:
        return Examples(features, features.sum(axis=1))
    return Examples(features, rng.integers(0, info.num_outputs, count))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def step_file() -> bytes:
    return make_training_graph(make_net(), IMAGES, SGD, proximal=True, masked=True)


@pytest.fixture(scope="module")
def outputs_file() -> bytes:
    return make_evaluation_graph(make_net(), IMAGES)


@pytest.fixture(scope="module")
def step(step_file: bytes) -> Graph:
    return load_graph(step_file, GraphKind.train)


@pytest.fixture(scope="module")
def adam_step() -> Graph:
    made = make_training_graph(make_line(), TABLE, ADAM, proximal=False, masked=False)
    return load_graph(made, GraphKind.train)


def both(
    graph: Graph,
    model: nn.Module,
    info: DataInfo,
    config: TrainConfig,
    *,
    count: int,
    mask: Bool | None = None,
    mu: float = 0.0,
) -> tuple[LocalUpdate, LocalUpdate]:
    examples, params = make_examples(info, count), made_up_params(model)
    local = LocalSettings(proximal_mu=mu)
    expected = train_locally(
        model, params, examples, info, config,
        local=local, learning_rate=0.02, mask=mask, rng=np.random.default_rng(3),
    )  # fmt: skip
    found = train_on_graph(
        graph, params, *inputs_of(examples, info), config,
        local=local, learning_rate=0.02, mask=mask, rng=np.random.default_rng(3),
    )  # fmt: skip
    return expected, found


def assert_alike(expected: LocalUpdate, found: LocalUpdate) -> None:
    assert (found.num_examples, found.num_steps) == (
        expected.num_examples,
        expected.num_steps,
    )
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    # Rounding: some 1e-7 of the largest value in each step.
    scale = float(np.abs(expected.delta).max())
    np.testing.assert_allclose(found.delta, expected.delta, atol=1e-3 * scale)


# 19: a short last batch; 17: a last single example, which joins the batch before;
# 1: nothing to normalize over, so the statistics are used and not changed.
@pytest.mark.parametrize("count", [19, 17, 1])
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_a_graph_trains_as_pytorch_does(step: Graph, count: int, mu: float) -> None:
    assert_alike(*both(step, make_net(), IMAGES, SGD, count=count, mu=mu))


def test_statistics_move_as_in_pytorch(step: Graph) -> None:
    expected, found = both(step, make_net(), IMAGES, SGD, count=19)
    places = step.spec.slices()
    for name in ("4.running_mean", "4.running_var"):
        moved = expected.delta[places[name]]
        assert (moved != 0).all()
        np.testing.assert_allclose(found.delta[places[name]], moved, rtol=1e-3)
    assert (found.delta[places["7.bias"]] == 0).all()


def test_pruned_values_stay_zero(step: Graph) -> None:
    net = make_net()
    spec = spec_of(net)
    mask = np.ones(spec.size, np.bool_)
    mask[: spec.num_trainable : 2] = False
    expected, found = both(step, net, IMAGES, SGD, count=19, mask=mask, mu=0.1)
    assert_alike(expected, found)
    assert (made_up_params(net) + found.delta == 0)[~mask].all()


@pytest.mark.parametrize(
    "augment", [Augmentation.shift, Augmentation.flip, Augmentation.noise]
)
def test_augmentation_is_that_of_pytorch(step: Graph, augment: Augmentation) -> None:
    config = TrainConfig(
        weight_decay=0.01, clip_norm=0.5, batch_size=8, augment=augment
    )
    assert_alike(*both(step, make_net(), IMAGES, config, count=19))


def test_adam_trains_as_pytorch_does(adam_step: Graph) -> None:
    assert_alike(*both(adam_step, make_line(), TABLE, ADAM, count=19))


def test_mixed_precision_is_float32_where_there_is_no_gpu(adam_step: Graph) -> None:
    mixed = TrainConfig(
        optimizer=OptimizerName.adam, batch_size=8, precision=Precision.mixed, steps=3
    )
    assert_alike(*both(adam_step, make_line(), TABLE, mixed, count=9))


def test_a_graph_evaluates_as_pytorch_does(outputs_file: bytes) -> None:
    graph = load_graph(outputs_file, GraphKind.evaluate)
    net, examples = make_net(), make_examples(IMAGES, 19)
    params = made_up_params(net)
    expected = evaluate(net, params, examples, IMAGES)
    found = evaluate_on_graph(graph, params, *inputs_of(examples, IMAGES), batch_size=8)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.score_sum == expected.score_sum
    assert found.num_examples == 19


def test_a_file_names_no_place_and_has_no_weights(
    step_file: bytes, outputs_file: bytes
) -> None:
    for model in (step_file, outputs_file):
        assert b".py" not in model
        assert b"/home" not in model
        assert b"/tmp" not in model
    assert len(step_file) < 60_000


def test_other_weights_give_the_same_bytes(outputs_file: bytes) -> None:
    net = make_net()
    for parameter in net.parameters():
        parameter.data.add_(1.0)
    assert make_evaluation_graph(net, IMAGES) == outputs_file


def test_what_a_graph_cannot_do_is_refused(adam_step: Graph) -> None:
    for config, mu, mask, wanted in (
        (SGD, 0.0, None, "weight_decay, clip_norm, sgd"),
        (ADAM, 0.1, None, "proximal"),
        (ADAM, 0.0, np.ones(adam_step.spec.size, np.bool_), "masked"),
    ):
        with pytest.raises(PeerError, match=wanted):
            both(adam_step, make_line(), TABLE, config, count=9, mask=mask, mu=mu)


def test_examples_of_another_shape_are_refused(adam_step: Graph) -> None:
    inputs, targets = inputs_of(make_examples(TABLE, 9), TABLE)
    params = made_up_params(make_line())
    for features, numbers in (
        (inputs[:, :2], targets),
        (inputs[:0], targets[:0]),
        (inputs, targets.astype(np.int64)),
        (inputs[:3], targets),
    ):
        with pytest.raises(DataError):
            train_on_graph(
                adam_step, params, features, numbers, ADAM, local=LocalSettings(),
                learning_rate=0.01, mask=None, rng=np.random.default_rng(0),
            )  # fmt: skip


def test_training_that_diverges_is_refused(adam_step: Graph) -> None:
    inputs, targets = inputs_of(make_examples(TABLE, 9), TABLE)
    with pytest.raises(VerificationError, match="not finite"):
        train_on_graph(
            adam_step, made_up_params(make_line()), inputs, targets, ADAM,
            local=LocalSettings(), learning_rate=1e38, mask=None,
            rng=np.random.default_rng(0),
        )  # fmt: skip


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs * 2 if bool(outputs.sum() > 0) else outputs


class Random(Branching):
    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs + torch.rand_like(outputs)


OUTSIDE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (lambda: nn.Sequential(make_line(), nn.Dropout(0.1)), "dropout=0"),
    "statistics": (
        lambda: nn.Sequential(
            nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)
        ),
        "no running statistics",
    ),
    "counting": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=None)),
        "momentum=None",
    ),
    "branching": (Branching, "Branching cannot be made a graph"),
    "random": (Random, "no random numbers"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_model_outside_the_limits_is_refused_with_the_reason(name: str) -> None:
    make, reason = OUTSIDE[name]
    with pytest.raises(CompressionError, match=reason):
        make_training_graph(make(), TABLE, SGD, proximal=False, masked=False)


def test_a_step_of_another_network_is_not_offered(step: Graph) -> None:
    net = make_net()
    net[1] = nn.Tanh()  # the same parameters
    with pytest.raises(CompressionError, match="differs from PyTorch"):
        check_training(step, net, IMAGES, SGD)
