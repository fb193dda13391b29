"""FedAdagrad by hand."""

from typing import Any

import numpy as np
import pytest

from fedge.aggregation import WeightedSum
from fedge.errors import ConfigError, RoundAbortedError
from strategies.fedadagrad import FedAdagrad


def test_steps_shrink_with_all_squares_so_far() -> None:
    strategy = FedAdagrad(learning_rate=0.5, tau=1.0)
    state = strategy.init(np.array([1.0], np.float32))
    state = strategy.apply(state, WeightedSum(np.array([6.0]), 2.0))  # the mean is 3
    assert state.params.tolist() == [1.0 + 0.5 * 3 / (3 + 1)]
    state = strategy.apply(state, WeightedSum(np.array([4.0]), 1.0))
    assert state.variance.tolist() == [25.0]
    expected = np.float32(1.375 + 0.5 * 4 / (5 + 1))
    assert state.params.tolist() == [expected]
    assert state.rounds_done == 2


@pytest.mark.parametrize("name", ["learning_rate", "tau"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "0.1", None])
def test_a_bad_argument_is_refused_by_name(name: str, value: object) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"strategy\.{name}: "):
        FedAdagrad(**arguments)


def test_zero_is_no_learning_rate_and_no_floor() -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        FedAdagrad(learning_rate=0.0)
    with pytest.raises(ConfigError, match="more than 0"):
        FedAdagrad(tau=0.0)


def test_a_round_without_weight_is_aborted() -> None:
    state = FedAdagrad().init(np.zeros(1, np.float32))
    with pytest.raises(RoundAbortedError):
        FedAdagrad().apply(state, WeightedSum(np.zeros(1), 0.0))
