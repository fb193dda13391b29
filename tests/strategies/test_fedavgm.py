"""FedAvgM by hand."""

from typing import Any

import numpy as np
import pytest

from fedge.aggregation import WeightedSum
from fedge.errors import ConfigError, RoundAbortedError
from strategies.fedavgm import FedAvgM


def test_the_velocity_keeps_a_share_and_the_model_follows_it() -> None:
    strategy = FedAvgM(momentum=0.5, learning_rate=2.0)
    state = strategy.init(np.zeros(1, np.float32))
    total = WeightedSum(np.array([3.0]), 3.0)  # the mean is 1
    state = strategy.apply(state, total)
    assert (state.velocity.tolist(), state.params.tolist()) == ([1.0], [2.0])
    state = strategy.apply(state, total)
    assert (state.velocity.tolist(), state.params.tolist()) == ([1.5], [5.0])
    assert state.params.dtype == np.float32
    assert state.velocity.dtype == np.float64


@pytest.mark.parametrize(
    "arguments",
    [
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"momentum": float("nan")},
        {"momentum": "0.9"},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"learning_rate": None},
    ],
)
def test_a_bad_argument_is_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"strategy.{next(iter(arguments))}: "):
        FedAvgM(**arguments)


def test_a_round_without_weight_is_aborted() -> None:
    state = FedAvgM().init(np.zeros(1, np.float32))
    with pytest.raises(RoundAbortedError):
        FedAvgM().apply(state, WeightedSum(np.zeros(1), 0.0))
