"""FedAvg by hand."""

import numpy as np
import pytest

from fedge.aggregation import WeightedSum
from fedge.errors import RoundAbortedError
from fedge.strategy import LocalSettings, Needs, Strategy
from strategies.fedavg import FedAvg, FedAvgState


def test_the_new_model_is_the_weighted_mean_of_the_local_ones() -> None:
    # Two devices with models (2, 0) and (4, 8) and weights 1 and 3; mean (3.5, 6).
    state = FedAvg().init(np.array([1.0, 2.0], np.float32))
    delta_sum = 1 * np.array([1.0, -2.0]) + 3 * np.array([3.0, 6.0])
    after = FedAvg().apply(state, WeightedSum(delta_sum, 4.0))
    assert after.params.tolist() == [3.5, 6.0]
    assert after.params.dtype == np.float32


def test_nobody_is_asked_for_anything_special() -> None:
    strategy: Strategy[FedAvgState] = FedAvg()
    state = strategy.init(np.zeros(1, np.float32))
    assert strategy.local(state) == LocalSettings(proximal_mu=0.0, extra={})
    assert strategy.needs is Needs.SUM


def test_a_round_without_weight_is_aborted() -> None:
    state = FedAvg().init(np.zeros(1, np.float32))
    with pytest.raises(RoundAbortedError):
        FedAvg().apply(state, WeightedSum(np.zeros(1), 0.0))
