"""FedYogi: a second moment that grows slowly and cannot explode.

Source: Reddi et al. (2021), "Adaptive Federated Optimization", arXiv:2003.00295,
algorithm 2; the Yogi line.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedge.aggregation import WeightedSum
from fedge.aggregation.adaptive import AdaptiveState, adaptive_step, initial_state
from fedge.arrays import Float32
from fedge.config.ranges import check_below_one, check_more_than
from fedge.strategy import LocalSettings, Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class FedYogi:
    """Needs only the cohort's sum, so it works under secure aggregation.

    Attributes:
        learning_rate: server learning rate (eta), > 0.
        beta_1: share of the old first moment that is kept, in [0, 1).
        beta_2: how slowly the second moment moves, in [0, 1).
        tau: floor of the denominator: larger is less adaptive, > 0.
    """

    needs: ClassVar[Needs] = Needs.SUM
    learning_rate: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        check_more_than("strategy.learning_rate", self.learning_rate, 0.0)
        check_below_one("strategy.beta_1", self.beta_1)
        check_below_one("strategy.beta_2", self.beta_2)
        check_more_than("strategy.tau", self.tau, 0.0)

    def init(self, params: Float32) -> AdaptiveState:
        """Return the state before the first round: both moments zero."""
        return initial_state(params)

    def apply(self, state: AdaptiveState, total: WeightedSum) -> AdaptiveState:
        """Return the state after one more round; `state` itself is left alone.

        Raises:
            RoundAbortedError: nobody contributed any weight.
        """
        delta = total.mean()
        square = delta**2
        variance = state.variance - (1.0 - self.beta_2) * square * np.sign(
            state.variance - square
        )
        return adaptive_step(
            state,
            delta,
            variance,
            learning_rate=self.learning_rate,
            beta_1=self.beta_1,
            tau=self.tau,
        )

    def local(self, state: AdaptiveState) -> LocalSettings:
        """Return plain local training."""
        return LocalSettings()
