"""Ours against Flower's own, on the same updates."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower

from fedge.aggregation import UpdateMatrix
from fedge.flower.adapter import FlowerStrategy
from fedge.strategy import Needs, Strategy
from strategies.fedadagrad import FedAdagrad
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedprox import FedProx
from strategies.fedyogi import FedYogi

SIZE = 40
PAIRS: list[tuple[Any, Callable[..., flower.Strategy], dict[str, float]]] = [
    (FedAvg(), flower.FedAvg, {}),
    (FedProx(proximal_mu=0.3), flower.FedProx, {"proximal_mu": 0.3}),
    (
        FedAvgM(momentum=0.7, learning_rate=0.5),
        flower.FedAvgM,
        {"server_momentum": 0.7, "server_learning_rate": 0.5},
    ),
    (
        FedAdam(learning_rate=0.05),
        flower.FedAdam,
        {"eta": 0.05, "beta_1": 0.9, "beta_2": 0.99},
    ),
    (
        FedYogi(learning_rate=0.05),
        flower.FedYogi,
        {"eta": 0.05, "beta_1": 0.9, "beta_2": 0.99},
    ),
    (FedAdagrad(learning_rate=0.05), flower.FedAdagrad, {"eta": 0.05}),
]


def updates(rng: np.random.Generator) -> UpdateMatrix:
    return UpdateMatrix(
        deltas=rng.normal(0.0, 0.1, (7, SIZE)).astype(np.float32),
        weights=rng.integers(1, 50, 7).astype(np.float64),
        losses=rng.uniform(0.1, 2.0, 7),
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"), PAIRS, ids=lambda v: getattr(v, "__name__", "")
)
def test_ours_agrees_with_flowers_over_five_rounds(
    ours: Strategy[Any], theirs: type[flower.Strategy], arguments: dict[str, float]
) -> None:
    rng = np.random.default_rng(5)
    start = rng.normal(0.0, 1.0, SIZE).astype(np.float32)
    adapter = FlowerStrategy(theirs, arguments)
    assert adapter.needs is Needs.SUM
    our_state, flower_state = ours.init(start), adapter.init(start)
    for _ in range(5):
        matrix = updates(rng)
        our_state = ours.apply(our_state, matrix.total())
        flower_state = adapter.apply(flower_state, matrix)
    # float32 models of size about 1, five rounds of different rounding each
    np.testing.assert_allclose(our_state.params, flower_state.params, atol=5e-6)
    assert ours.local(our_state).proximal_mu == pytest.approx(
        adapter.local(flower_state).proximal_mu
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"), PAIRS, ids=lambda v: getattr(v, "__name__", "")
)
def test_apply_leaves_the_old_state_alone(
    ours: Strategy[Any], theirs: type[flower.Strategy], arguments: dict[str, float]
) -> None:
    rng = np.random.default_rng(6)
    start = rng.normal(0.0, 1.0, SIZE).astype(np.float32)
    state = ours.apply(ours.init(start), updates(rng).total())
    before = state.params.copy()
    ours.apply(state, updates(rng).total())
    assert (state.params == before).all()
