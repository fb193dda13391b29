"""FedAvg: the mean of the local models, weighted by their numbers of examples.

Source: McMahan et al. (2017), "Communication-Efficient Learning of Deep Networks from
Decentralized Data", arXiv:1602.05629, algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedge.aggregation import WeightedSum
from fedge.arrays import Float32
from fedge.strategy import LocalSettings, Needs


@dataclass(frozen=True, slots=True)
class FedAvgState:
    """What the server carries from one round to the next.

    Attributes:
        params: global model, float32, shape (d,).
    """

    params: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg:
    """Needs only the cohort's sum, so it works under secure aggregation."""

    needs: ClassVar[Needs] = Needs.SUM

    def init(self, params: Float32) -> FedAvgState:
        """Return the state before the first round."""
        return FedAvgState(params)

    def apply(self, state: FedAvgState, total: WeightedSum) -> FedAvgState:
        """Return the state after one more round; `state` itself is left alone.

        Raises:
            RoundAbortedError: nobody contributed any weight.
        """
        return FedAvgState((state.params + total.mean()).astype(np.float32))

    def local(self, state: FedAvgState) -> LocalSettings:
        """Return plain local training: FedAvg asks for nothing special."""
        return LocalSettings()
