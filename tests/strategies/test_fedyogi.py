"""FedYogi by hand."""

from typing import Any

import numpy as np
import pytest

from fedge.aggregation import WeightedSum
from fedge.errors import ConfigError, RoundAbortedError
from strategies.fedyogi import FedYogi


def test_the_second_moment_moves_towards_the_square_by_a_share_of_it() -> None:
    strategy = FedYogi(learning_rate=1.0, beta_1=0.5, beta_2=0.75, tau=1.0)
    state = strategy.init(np.zeros(1, np.float32))
    state = strategy.apply(
        state, WeightedSum(np.array([4.0]), 2.0)
    )  # up: the mean is 2
    assert (state.momentum.tolist(), state.variance.tolist()) == ([1.0], [1.0])
    assert state.params.tolist() == [1 / (1 + 1)]
    state = strategy.apply(state, WeightedSum(np.array([1.0]), 1.0))  # equal: stays
    assert (state.params.tolist(), state.variance.tolist()) == ([1.0], [1.0])
    state = strategy.apply(state, WeightedSum(np.array([0.5]), 1.0))  # down
    assert state.variance.tolist() == [1 - 0.25 * 0.25]


def test_the_second_moment_never_falls_below_zero() -> None:
    strategy = FedYogi(beta_2=0.0)
    rng = np.random.default_rng(3)
    state = strategy.init(np.zeros(4, np.float32))
    for _ in range(20):
        state = strategy.apply(state, WeightedSum(rng.normal(size=4), 1.0))
        assert (state.variance >= 0).all()


@pytest.mark.parametrize("name", ["beta_1", "beta_2"])
def test_a_moment_that_never_moves_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"strategy\.{name}: 1.0 not in \[0, 1\)"):
        FedYogi(**{name: 1.0})


@pytest.mark.parametrize("name", ["learning_rate", "beta_1", "beta_2", "tau"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, "0.1", None])
def test_a_bad_argument_is_refused_by_name(name: str, value: object) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"strategy\.{name}: "):
        FedYogi(**arguments)


def test_zero_is_no_learning_rate_and_no_floor() -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        FedYogi(learning_rate=0.0)
    with pytest.raises(ConfigError, match="more than 0"):
        FedYogi(tau=0.0)


def test_a_round_without_weight_is_aborted() -> None:
    state = FedYogi().init(np.zeros(1, np.float32))
    with pytest.raises(RoundAbortedError):
        FedYogi().apply(state, WeightedSum(np.zeros(1), 0.0))
