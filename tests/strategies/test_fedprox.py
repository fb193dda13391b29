"""FedProx: FedAvg on the server, a pull on the devices."""

from typing import Any

import numpy as np
import pytest

from fedge.aggregation import WeightedSum
from fedge.errors import ConfigError, RoundAbortedError
from strategies.fedprox import FedProx


def test_the_server_averages() -> None:
    state = FedProx().init(np.array([1.0], np.float32))
    after = FedProx().apply(state, WeightedSum(np.array([6.0]), 4.0))
    assert after.params.tolist() == [2.5]


@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_devices_are_told_mu(mu: float) -> None:
    strategy = FedProx(proximal_mu=mu)
    assert strategy.local(strategy.init(np.zeros(1, np.float32))).proximal_mu == mu


@pytest.mark.parametrize("mu", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_a_bad_mu_is_refused_by_name(mu: object) -> None:
    arguments: dict[str, Any] = {"proximal_mu": mu}
    with pytest.raises(ConfigError, match=r"strategy\.proximal_mu: "):
        FedProx(**arguments)


def test_a_round_without_weight_is_aborted() -> None:
    state = FedProx().init(np.zeros(1, np.float32))
    with pytest.raises(RoundAbortedError):
        FedProx().apply(state, WeightedSum(np.zeros(1), 0.0))
