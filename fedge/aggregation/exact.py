"""A weighted sum that does not depend on the order of its terms.

Floating-point addition is not associative: the same cohort, added in another order or
in partial sums by two workers, gives another model. Here each term is rounded once to
a fixed-point grid of 2**-32 and added as a 64-bit integer, so any order and any
grouping give the same bits. Secure aggregation, too, computes a sum of integers.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedge.arrays import AnyArray, Float32, Float64, Int64
from fedge.errors import PeerError

# 32 fractional bits: one rounding moves weight * delta by at most 2**-33, and the sum
# may reach 2**30 (a billion) before an int64 could overflow.
_FRACTION_BITS = 32
_SCALE = float(2**_FRACTION_BITS)
_MAX_MAGNITUDE = 2.0**30
# Coordinates that are added at a time: their float64 and int64 copies stay in cache.
_BLOCK = 16_384
# Below this magnitude, adding and subtracting 1.5 * 2**52 rounds a scaled value to a
# whole number, half to even like rint, and leaves that number in the last 51 bits: the
# processor has no fast conversion from float64 to int64. The magic number's own bits
# stay in the sum until it is read; integers wrap around, so that they may pile up.
_SMALL = 2.0 ** (51 - _FRACTION_BITS - 1)
_MAGIC = 1.5 * 2.0**52
_MAGIC_BITS = int(np.float64(_MAGIC).view(np.int64))


class ExactSum:
    """Adds weighted vectors; the result is the same in any order.

    Guarantee: permuting or grouping the n terms does not change a bit, of the sum or
    of the mean. The sum differs from the real-number sum by at most n * 2**-33 per
    coordinate, plus the rounding of float64 itself: a share of 2**-53 of each term
    (none for float32 vectors and whole weights below 2**29) and of the result.
    """

    def __init__(self, size: int) -> None:
        # Zeros that take no memory; whoever adds makes them its own.
        self._units: Int64 = np.broadcast_to(np.int64(0), (size,))
        self._num_offsets = 0  # of _MAGIC_BITS that are in each of the units
        self._magnitude = 0.0
        self._weight_sum = Fraction(0)  # exact, so that its order does not matter
        self.num_terms = 0

    @property
    def exact_weight_sum(self) -> Fraction:
        """Sum of the weights."""
        return self._weight_sum

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
        self._own_units()
        magnitude = self._add_small(vector, weight)
        if magnitude is None:
            magnitude = _largest(vector) * weight
            self._check_fits(magnitude)
            self._add_large(vector, weight)
        self._magnitude += magnitude
        self._weight_sum += Fraction(weight)
        self.num_terms += 1

    def _check_fits(self, magnitude: float) -> None:
        if self._magnitude + magnitude > _MAX_MAGNITUDE:
            raise PeerError(
                f"update: weight * magnitude {magnitude:.3g} does not fit; the sum may "
                f"reach {_MAX_MAGNITUDE:.3g}"
            )

    def _add_small(self, vector: AnyArray, weight: float) -> float | None:
        """Add a term of small values; return its magnitude.

        Looks at each block and adds it while it is in the cache: a large vector comes
        from memory once. If a value is not small, or not a number, what was added is
        taken away again and the result is None.
        """
        largest, scratch = 0.0, _scratch(vector)
        for start in range(0, vector.size, _BLOCK):
            part = vector[start : start + _BLOCK]
            highest, lowest = float(part.max()), float(part.min())
            here = max(highest, -lowest) * weight
            if not here < _SMALL:  # nor is a NaN, which both are if one value is
                self._take_small(vector[:start], weight)
                return None
            self._add_block(start, _small_bits(part, weight, scratch))
            largest = max(largest, here)
        if self._magnitude + largest > _MAX_MAGNITUDE:
            self._take_small(vector, weight)
            return None
        self._num_offsets += 1
        return largest

    def _take_small(self, vector: AnyArray, weight: float) -> None:
        """Undo that this vector was added to the first coordinates."""
        scratch = _scratch(vector)
        for start in range(0, vector.size, _BLOCK):
            bits = _small_bits(vector[start : start + _BLOCK], weight, scratch)
            self._add_block(start, np.negative(bits, out=bits))

    def _add_large(self, vector: AnyArray, weight: float) -> None:
        """Add a term of any values."""
        scratch = _scratch(vector)
        for start in range(0, vector.size, _BLOCK):
            scaled = _scaled(vector[start : start + _BLOCK], weight, scratch)
            self._add_block(start, np.rint(scaled, out=scaled).astype(np.int64))

    def _add_block(self, start: int, units: Int64) -> None:
        target = self._units[start : start + units.size]
        np.add(target, units, out=target)

    def add_many(self, matrix: AnyArray, weights: Float64) -> None:
        """Add weight * row for each row of a matrix.

        Guarantee: the same as adding the rows one by one.

        Args:
            matrix: floats or integers, shape (n, size), finite.
            weights: float64, shape (n,); see `add`.

        Raises:
            PeerError: as `add`, for one of the rows. The sum is unchanged.
        """
        if matrix.dtype.kind not in "fiu":
            raise PeerError(f"update: dtype {matrix.dtype}, need floats or integers")
        if matrix.shape != (len(weights), self._units.size):
            raise PeerError(f"updates: shape {matrix.shape}, need ({len(weights)}, d)")
        if len(weights) == 0:
            return
        if not ((weights > 0.0) & (weights < _MAX_MAGNITUDE)).all():
            raise PeerError("weight: one is not in (0, 2**30)")
        # Of the whole rows, in one pass; a NaN is the result of both, and not below.
        highest, lowest = matrix.max(axis=1, initial=0), matrix.min(axis=1, initial=0)
        largest = np.maximum(highest, -lowest.astype(np.float64))
        if not largest.max(initial=0.0) < np.inf:
            for row in matrix:
                _largest(row)
        magnitude = self._magnitude + float(largest @ weights)
        if magnitude > _MAX_MAGNITUDE:
            raise PeerError(
                f"updates: their sum may reach {magnitude:.3g}, more than "
                f"{_MAX_MAGNITUDE:.3g}"
            )
        self._own_units()
        if magnitude < _SMALL:
            self._add_small_rows(matrix, weights.tolist())
        else:
            for row, weight in zip(matrix, weights.tolist(), strict=True):
                self._add_large(row, weight)
        self._magnitude = magnitude
        self._weight_sum += sum(map(Fraction, weights.tolist()), Fraction(0))
        self.num_terms += len(weights)

    def _add_small_rows(self, matrix: AnyArray, weights: Sequence[float]) -> None:
        scratch = _scratch(self._units)
        for start in range(0, self._units.size, _BLOCK):
            for part, weight in zip(
                matrix[:, start : start + _BLOCK], weights, strict=True
            ):
                self._add_block(start, _small_bits(part, weight, scratch))
        self._num_offsets += len(weights)

    def merge(self, other: "ExactSum") -> None:
        """Add a partial sum, for example a worker's; raise PeerError on overflow."""
        if other._units.shape != self._units.shape:
            raise PeerError(
                f"partial sum: shape {other._units.shape}, need {self._units.shape}"
            )
        if self._magnitude + other._magnitude > _MAX_MAGNITUDE:
            raise PeerError("partial sum: too large to be added without overflow")
        if self.num_terms == 0:
            units = other._whole_units()  # those of `from_parts` do not change
            self._units = units.copy() if units.flags.writeable else units
        elif self._units.flags.writeable:
            self._units += other._whole_units()
        else:
            self._units = self._units + other._whole_units()
        self._magnitude += other._magnitude
        self._weight_sum += other._weight_sum
        self.num_terms += other.num_terms

    def _whole_units(self) -> Int64:
        """Return the units, without the offsets that small terms left in them."""
        if self._num_offsets:
            offset = (self._num_offsets * _MAGIC_BITS) % 2**64  # as int64 wraps around
            self._units -= np.uint64(offset).astype(np.int64)
            self._num_offsets = 0
        return self._units

    def _own_units(self) -> None:
        """Make a copy before the first change of units that belong to another sum."""
        if not self._units.flags.writeable:
            self._units = self._units.copy()

    def parts(self) -> tuple[Int64, dict[str, float | int | str]]:
        """Return the sum as data: its units of 2**-32, and what else it consists of.

        Guarantee: `from_parts(*sum.parts())` goes on exactly like the sum itself.
        """
        return self._whole_units(), {
            "magnitude": self._magnitude,
            "weight_sum": str(self._weight_sum),
            "num_terms": self.num_terms,
        }

    @classmethod
    def from_parts(
        cls, units: Int64, numbers: Mapping[str, float | int | str]
    ) -> "ExactSum":
        """Return the sum that `parts` described; `units` must not change any more."""
        result = cls(0)
        result._units = units.view()
        result._units.flags.writeable = False
        result._magnitude = float(numbers["magnitude"])
        result._weight_sum = Fraction(str(numbers["weight_sum"]))
        result.num_terms = int(numbers["num_terms"])
        return result

    def total(self) -> Float64:
        """Return the sum of weight * vector, float64, shape (size,)."""
        return self._whole_units() / _SCALE

    def mean(self) -> Float64:
        """Return total / weight_sum; raise ValueError if nothing was added."""
        return self._mean(np.float64)

    def mean_float32(self) -> Float32:
        """Return `mean()` rounded to float32, without an array of float64."""
        return self._mean(np.float32)

    def _mean(self, dtype: type[np.floating[Any]]) -> NDArray[Any]:
        if self.num_terms == 0:
            raise ValueError("nothing was added")
        units = self._whole_units()
        result = np.empty(units.size, dtype)
        for start in range(0, result.size, _BLOCK):
            part = units[start : start + _BLOCK] / (self.weight_sum * _SCALE)
            result[start : start + part.size] = part
        return result


def _scratch(vector: AnyArray) -> Float64:
    return np.empty(min(_BLOCK, vector.size), np.float64)


def _scaled(part: AnyArray, weight: float, scratch: Float64) -> Float64:
    """Return weight * part in units of 2**-32, in the memory of `scratch`."""
    scaled = scratch[: part.size]
    return np.multiply(part, weight * _SCALE, out=scaled, dtype=np.float64)


def _small_bits(part: AnyArray, weight: float, scratch: Float64) -> Int64:
    """Return weight * part in whole units, plus _MAGIC_BITS, in `scratch`."""
    scaled = _scaled(part, weight, scratch)
    scaled += _MAGIC
    bits: Int64 = scaled.view(np.int64)
    return bits


def _largest(vector: AnyArray) -> float:
    """Return the largest magnitude; raise PeerError if one is not finite."""
    # Not np.abs: the smallest number of an integer type has no positive twin. A NaN
    # is the result of both.
    largest = max(float(vector.max(initial=0)), -float(vector.min(initial=0)))
    if not largest < np.inf:
        bad = int(vector.size - np.count_nonzero(np.isfinite(vector)))
        raise PeerError(f"update: {bad} of {vector.size} values are not finite")
    return largest
