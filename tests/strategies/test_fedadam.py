"""FedAdam by hand."""

import math
from typing import Any

import numpy as np
import pytest

from fedge.aggregation import WeightedSum
from fedge.errors import ConfigError, RoundAbortedError
from strategies.fedadam import FedAdam


def test_two_bias_corrected_steps() -> None:
    strategy = FedAdam(learning_rate=1.0, beta_1=0.5, beta_2=0.75, tau=1.0)
    state = strategy.init(np.zeros(1, np.float32))
    state = strategy.apply(state, WeightedSum(np.array([4.0]), 2.0))  # the mean is 2
    assert (state.momentum.tolist(), state.variance.tolist()) == ([1.0], [1.0])
    first = math.sqrt(1 - 0.75**2) / (1 - 0.5**2) * 1 / (1 + 1)
    assert state.params.tolist() == [np.float32(first)]
    state = strategy.apply(state, WeightedSum(np.array([1.0]), 1.0))
    assert (state.momentum.tolist(), state.variance.tolist()) == ([1.0], [1.0])
    second = math.sqrt(1 - 0.75**3) / (1 - 0.5**3) * 1 / (1 + 1)
    assert state.params.tolist() == pytest.approx([first + second], rel=2**-22)


@pytest.mark.parametrize("name", ["beta_1", "beta_2"])
def test_a_moment_that_never_moves_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"strategy\.{name}: 1.0 not in \[0, 1\)"):
        FedAdam(**{name: 1.0})


@pytest.mark.parametrize("name", ["learning_rate", "beta_1", "beta_2", "tau"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "0.1", None])
def test_a_bad_argument_is_refused_by_name(name: str, value: object) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"strategy\.{name}: "):
        FedAdam(**arguments)


def test_zero_is_no_learning_rate_and_no_floor() -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        FedAdam(learning_rate=0.0)
    with pytest.raises(ConfigError, match="more than 0"):
        FedAdam(tau=0.0)


def test_a_round_without_weight_is_aborted() -> None:
    state = FedAdam().init(np.zeros(1, np.float32))
    with pytest.raises(RoundAbortedError):
        FedAdam().apply(state, WeightedSum(np.zeros(1), 0.0))
