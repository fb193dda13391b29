"""FedAdagrad: steps shrink with the sum of all squared updates.

Source: Reddi et al. (2021), "Adaptive Federated Optimization", arXiv:2003.00295,
algorithm 2; the Adagrad line, with beta_1 = 0 as in the paper's experiments.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedge.aggregation import WeightedSum
from fedge.aggregation.adaptive import AdaptiveState, adaptive_step, initial_state
from fedge.arrays import Float32
from fedge.config.ranges import check_more_than
from fedge.strategy import LocalSettings, Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAdagrad:
    """Needs only the cohort's sum, so it works under secure aggregation.

    Attributes:
        learning_rate: server learning rate (eta), > 0.
        tau: floor of the denominator: larger is less adaptive, > 0.
    """

    needs: ClassVar[Needs] = Needs.SUM
    learning_rate: float = 0.03
    tau: float = 1e-3

    def __post_init__(self) -> None:
        check_more_than("strategy.learning_rate", self.learning_rate, 0.0)
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
        return adaptive_step(
            state,
            delta,
            state.variance + delta**2,
            learning_rate=self.learning_rate,
            beta_1=0.0,
            tau=self.tau,
        )

    def local(self, state: AdaptiveState) -> LocalSettings:
        """Return plain local training."""
        return LocalSettings()
