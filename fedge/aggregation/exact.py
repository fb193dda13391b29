"""A weighted sum that does not depend on the order of its terms.

Floating-point addition is not associative: the same cohort, added in another order or
in partial sums by two workers, gives another model. Here each term is rounded once to
a fixed-point grid of 2**-32 and added as a 64-bit integer, so any order and any
grouping give the same bits. Secure aggregation, too, computes a sum of integers.
"""

from fractions import Fraction

import numpy as np

from fedge.arrays import AnyArray, Float64, Int64, check_finite
from fedge.errors import PeerError

# 32 fractional bits: one rounding moves weight * delta by at most 2**-33, and the sum
# may reach 2**30 (a billion) before an int64 could overflow.
_FRACTION_BITS = 32
_SCALE = float(2**_FRACTION_BITS)
_MAX_MAGNITUDE = 2.0**30


class ExactSum:
    """Adds weighted vectors; the result is the same in any order.

    Guarantee: permuting or grouping the n terms does not change a bit, of the sum or
    of the mean. The sum differs from the real-number sum by at most n * 2**-33 per
    coordinate, plus the rounding of float64 itself: a share of 2**-53 of each term
    (none for float32 vectors and whole weights below 2**29) and of the result.
    """

    def __init__(self, size: int) -> None:
        self._units: Int64 = np.zeros(size, np.int64)
        self._magnitude = 0.0
        self._weight_sum = Fraction(0)  # exact, so that its order does not matter
        self.num_terms = 0

    @property
    def weight_sum(self) -> float:
        """Sum of the weights, rounded once."""
        return float(self._weight_sum)

    def add(self, vector: AnyArray, weight: float) -> None:
        """Add weight * vector.

        Args:
            vector: floats or integers, shape (size,), finite.
            weight: > 0 and finite; usually a number of examples.

        Raises:
            PeerError: wrong shape or type, not finite, a weight out of range, or too
                large to be added without overflow. The sum is unchanged.
        """
        if vector.dtype.kind not in "fiu":
            raise PeerError(f"update: dtype {vector.dtype}, need floats or integers")
        if vector.shape != self._units.shape:
            raise PeerError(f"update: shape {vector.shape}, need {self._units.shape}")
        if not 0.0 < weight < _MAX_MAGNITUDE:
            raise PeerError(f"weight: {weight} not in (0, 2**30)")
        try:
            check_finite(vector, "update")
        except ValueError as exc:
            raise PeerError(str(exc)) from exc
        # Not np.abs: the smallest number of an integer type has no positive twin.
        largest = max(float(vector.max(initial=0)), -float(vector.min(initial=0)))
        magnitude = largest * weight
        if self._magnitude + magnitude > _MAX_MAGNITUDE:
            raise PeerError(
                f"update: weight * magnitude {magnitude:.3g} does not fit; the sum may "
                f"reach {_MAX_MAGNITUDE:.3g}"
            )
        scaled = np.multiply(vector, weight * _SCALE, dtype=np.float64)
        self._units += np.rint(scaled, out=scaled).astype(np.int64)
        self._magnitude += magnitude
        self._weight_sum += Fraction(weight)
        self.num_terms += 1

    def merge(self, other: "ExactSum") -> None:
        """Add a partial sum, for example a worker's; raise PeerError on overflow."""
        if other._units.shape != self._units.shape:
            raise PeerError(
                f"partial sum: shape {other._units.shape}, need {self._units.shape}"
            )
        if self._magnitude + other._magnitude > _MAX_MAGNITUDE:
            raise PeerError("partial sum: too large to be added without overflow")
        self._units += other._units
        self._magnitude += other._magnitude
        self._weight_sum += other._weight_sum
        self.num_terms += other.num_terms

    def total(self) -> Float64:
        """Return the sum of weight * vector, float64, shape (size,)."""
        return self._units / _SCALE

    def mean(self) -> Float64:
        """Return total / weight_sum; raise ValueError if nothing was added."""
        if self.num_terms == 0:
            raise ValueError("nothing was added")
        return self.total() / self.weight_sum
