"""FedAvgM: federated averaging with momentum on the server.

Source: Hsu, Qi, Brown (2019), arXiv:1909.06335. Their beta is `momentum` here.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedge.aggregation import WeightedSum
from fedge.arrays import Float32, Float64
from fedge.config.ranges import check_below_one, check_more_than
from fedge.strategy import LocalSettings, Needs


@dataclass(frozen=True, slots=True)
class FedAvgMState:
    """What the server carries from one round to the next.

    Attributes:
        params: global model, float32, shape (d,).
        velocity: running sum of the mean updates, float64, shape (d,).
    """

    params: Float32
    velocity: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM:
    """Needs only the cohort's sum, so it works under secure aggregation.

    Attributes:
        momentum: share of the old velocity that is kept, in [0, 1).
        learning_rate: length of the step along the velocity, > 0.
    """

    needs: ClassVar[Needs] = Needs.SUM
    momentum: float = 0.9
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        check_below_one("strategy.momentum", self.momentum)
        check_more_than("strategy.learning_rate", self.learning_rate, 0.0)

    def init(self, params: Float32) -> FedAvgMState:
        """Return the state before the first round: at rest."""
        return FedAvgMState(params, np.zeros(params.shape, np.float64))

    def apply(self, state: FedAvgMState, total: WeightedSum) -> FedAvgMState:
        """Return the state after one more round; `state` itself is left alone.

        Raises:
            RoundAbortedError: nobody contributed any weight.
        """
        velocity = self.momentum * state.velocity + total.mean()
        params = (state.params + self.learning_rate * velocity).astype(np.float32)
        return FedAvgMState(params, velocity)

    def local(self, state: FedAvgMState) -> LocalSettings:
        """Return plain local training."""
        return LocalSettings()
