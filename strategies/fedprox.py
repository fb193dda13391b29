"""FedProx: FedAvg whose devices are pulled back towards the global model.

Source: Li et al. (2020), "Federated Optimization in Heterogeneous Networks",
arXiv:1812.06127, algorithm 2. Their mu is `proximal_mu` here.
"""

from dataclasses import dataclass
from typing import ClassVar

from fedge.aggregation import WeightedSum
from fedge.arrays import Float32
from fedge.config.ranges import check_at_least
from fedge.strategy import LocalSettings, Needs
from strategies.fedavg import FedAvg, FedAvgState


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx:
    """Needs only the cohort's sum, so it works under secure aggregation.

    Attributes:
        proximal_mu: weight of 0.5 * mu * |local - global|**2 in the local loss, >= 0;
            0 is FedAvg.
    """

    needs: ClassVar[Needs] = Needs.SUM
    proximal_mu: float = 0.1

    def __post_init__(self) -> None:
        check_at_least("strategy.proximal_mu", self.proximal_mu, 0.0)

    def init(self, params: Float32) -> FedAvgState:
        """Return the state before the first round."""
        return FedAvg().init(params)

    def apply(self, state: FedAvgState, total: WeightedSum) -> FedAvgState:
        """Return the state after one more round; the server side is FedAvg's.

        Raises:
            RoundAbortedError: nobody contributed any weight.
        """
        return FedAvg().apply(state, total)

    def local(self, state: FedAvgState) -> LocalSettings:
        """Return the proximal term that devices add to their loss."""
        return LocalSettings(proximal_mu=self.proximal_mu)
