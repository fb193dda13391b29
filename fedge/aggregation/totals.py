"""What a strategy is given at the end of a round: a sum, or each update."""

from dataclasses import dataclass

import numpy as np

from fedge.arrays import Float32, Float64
from fedge.errors import RoundAbortedError


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """The cohort's updates, summed; all that secure aggregation lets anybody see.

    Attributes:
        delta_sum: sum of weight * (local - global), float64, shape (d,).
        weight_sum: sum of the weights (numbers of examples), > 0 in a useful round.
    """

    delta_sum: Float64
    weight_sum: float

    def mean(self) -> Float64:
        """Return delta_sum / weight_sum.

        Raises:
            RoundAbortedError: nobody contributed any weight.
        """
        if not self.weight_sum > 0.0:
            raise RoundAbortedError("no weight was contributed; try another cohort")
        return self.delta_sum / self.weight_sum


@dataclass(frozen=True, slots=True)
class UpdateMatrix:
    """Every single update; only for strategies that cannot work on a sum.

    Attributes:
        deltas: local - global of each client, float32, shape (n, d).
        weights: numbers of examples, float64, shape (n,).
        losses: mean training loss of each client, float64, shape (n,).
    """

    deltas: Float32
    weights: Float64
    losses: Float64

    def total(self) -> WeightedSum:
        """Return the weighted sum of the rows."""
        delta_sum = np.einsum("n,nd->d", self.weights, self.deltas, dtype=np.float64)
        return WeightedSum(delta_sum, float(self.weights.sum()))
