"""Activation ranges on their way from a device: clipped to a public bound, in [-1, 1].

A range is sent as where it lies between the bounds on a scale that is linear near zero
and logarithmic beyond: few bits give every magnitude the same relative precision, which
is what the rings of secure aggregation offer. The mean of several devices' ranges is
taken on this scale.

Every device clips to the same public bound, for three reasons: a masked sum needs one;
a device that lies or has one broken example moves a mean by no more than its share; and
what is sent says nothing more exact about a device's most extreme example.
"""

from dataclasses import dataclass

import numpy as np

from fedge.arrays import Float32, Float64

# Larger than activations of networks that train; a wider scale would be a coarser one.
BOUND = 4096.0
_LINEAR_BELOW = 1.0 / 4096.0
_OCTAVES = np.log2(1.0 + BOUND / _LINEAR_BELOW)


@dataclass(frozen=True, slots=True)
class Ranges:
    """The range of every activation tensor of one model.

    Attributes:
        names: of the tensors, sorted.
        low, high: float32, shape (k,), low <= high, within [-BOUND, BOUND].

    Raises:
        ValueError: shapes differ, or a range is not finite, inverted or out of bounds.
    """

    names: tuple[str, ...]
    low: Float32
    high: Float32

    def __post_init__(self) -> None:
        shape = (len(self.names),)
        if self.low.shape != shape or self.high.shape != shape:
            raise ValueError(
                f"ranges: shapes {self.low.shape} and {self.high.shape} for "
                f"{len(self.names)} tensors"
            )
        # A NaN fails every comparison.
        fits = (self.low >= -BOUND) & (self.low <= self.high) & (self.high <= BOUND)
        if not fits.all():
            name = self.names[int(np.argmin(fits))]
            raise ValueError(
                f"ranges: that of {name[:80]!r} is inverted, not finite or beyond "
                f"{BOUND:g}"
            )


NO_RANGES = Ranges((), np.zeros(0, np.float32), np.zeros(0, np.float32))


def encode(low: Float64, high: Float64) -> Float32:
    """Return what a device sends: float32, shape (2, k), in [-1, 1].

    Guarantee: monotone, so the order of two bounds is kept; `decode` gives them back
    with a relative error of at most 1e-5 (absolute, below 1/4096: 1e-8), clipped to
    `BOUND`.

    Args:
        low: least values, finite, shape (k,).
        high: largest values, finite, shape (k,).

    Raises:
        ValueError: a bound is not finite, or a range is inverted.
    """
    both = np.stack([low, high]).astype(np.float64)
    if not np.isfinite(both).all() or (both[0] > both[1]).any():
        raise ValueError("ranges: a bound is not finite, or a range is inverted")
    clipped = np.clip(both, -BOUND, BOUND)
    place = np.log2(1.0 + np.abs(clipped) / _LINEAR_BELOW) / _OCTAVES
    result: Float32 = (np.sign(clipped) * place).astype(np.float32)
    return result


def decode(places: Float64) -> Float64:
    """Undo `encode`: from [-1, 1] to [-BOUND, BOUND], any shape."""
    size = _LINEAR_BELOW * np.expm1(np.abs(places) * _OCTAVES * np.log(2.0))
    result: Float64 = np.sign(places) * np.minimum(size, BOUND)
    return result
