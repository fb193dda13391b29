"""One client's update as ring elements, and the sum of all of them as a mean.

The vector holds the coordinates of the update, the weight, and two elements per metric:
nobody sees a client's number of examples or loss either. Metrics are written in two
digits to the base Q, which makes them as precise as the ring allows.

Coordinates are rounded at random (unbiased). The randomness is derived from the update
itself and not drawn: it protects nothing (the masks do), and a client that is asked
again for the same update after a crash sends the same codes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedge.arrays import AnyArray, Float32, Float64, Int64
from fedge.errors import RoundAbortedError
from fedge.secagg.hashing import digest
from fedge.secagg.ring import Profile, decode_mean, encode, weight_code_of

# Losses beyond this are clipped; what a metric means at that size is "diverged".
METRIC_CLIP = 64.0
_DIGITS = 2
_SAMPLED = 16


def vector_size(num_coordinates: int, num_metrics: int) -> int:
    """Return the number of ring elements of an update."""
    return num_coordinates + 1 + _DIGITS * (num_metrics + 1)


@dataclass(frozen=True, slots=True)
class Scale:
    """How numbers become codes.

    Attributes:
        profile: ring and value bits.
        clip: largest magnitude of a coordinate.
        max_weight: weight of the largest code; heavier clients count as this.
    """

    profile: Profile
    clip: float
    max_weight: float


def encode_update(
    update: Float32, weight: float, metrics: Sequence[float], scale: Scale
) -> AnyArray:
    """Return the vector of ring elements, before masking.

    Guarantee: equal arguments give equal codes; coordinates are unbiased unless they
    are clipped.

    Args:
        update: coordinates, float32, finite.
        weight: > 0; above `max_weight` it counts as `max_weight`.
        metrics: finite numbers.
        scale: how to encode.

    Raises:
        ValueError: a number is not finite, or the weight is not positive.
    """
    profile = scale.profile
    if not (np.isfinite(metrics).all() and np.isfinite(weight)):
        raise ValueError("the weight or a metric is not finite")
    code = weight_code_of(min(weight, scale.max_weight), scale.max_weight, profile)
    noise_key = digest("rounding", *_fingerprint(update))
    encoded = encode(
        update,
        clip=scale.clip,
        weight_code=code,
        profile=profile,
        noise_key=noise_key,
    )
    extras = [code]
    for value, largest in (
        *((value, METRIC_CLIP) for value in metrics),
        (encoded.clipped_fraction, 1.0),
    ):
        extras += _digits(value / largest, code, profile.max_code)
    ring = np.array(extras, np.int64).astype(profile.dtype)
    return np.concatenate([encoded.codes, ring])


def _fingerprint(update: Float32) -> tuple[bytes, bytes]:
    """Return a sample and a checksum of the update: enough to round differently.

    A hash of all of it would take ten times as long, and hides nothing either.
    """
    bits = np.ascontiguousarray(update, "<f4").view("<u4")
    sample = np.ascontiguousarray(bits[::_SAMPLED])
    checksum = np.bitwise_xor.reduce(bits, initial=0)
    return hashlib.sha256(sample.data).digest(), int(checksum).to_bytes(4, "little")


def _digits(share: float, weight_code: int, base: int) -> tuple[int, int]:
    """Return weight * share, share in [-1, 1], as two digits to the base Q."""
    clipped = min(max(share, -1.0), 1.0)
    high, low = divmod(round(clipped * weight_code * base), base)
    return high, low


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a cohort's sum says.

    Attributes:
        mean: weighted mean of the updates, float64.
        weight_sum: sum of the weights.
        metrics: weighted means of the metrics.
        clipped_fraction: weighted mean of the shares of clipped coordinates.
    """

    mean: Float64
    weight_sum: float
    metrics: tuple[float, ...]
    clipped_fraction: float


def decode_total(
    sums: Int64, num_coordinates: int, scale: Scale, *, num_survivors: int
) -> Decoded:
    """Return the means behind the sums of the survivors' codes.

    Args:
        sums: int64, shape (m,), sign-extended.
        num_coordinates: coordinates of an update.
        scale: how they were encoded.
        num_survivors: clients in the sum.

    Raises:
        RoundAbortedError: a sum is larger than honest clients can make it, so somebody
            has cheated or a mask is left: discard the round.
    """
    code_sum, base = int(sums[num_coordinates]), scale.profile.max_code
    coordinates = sums[:num_coordinates]
    digits = sums[num_coordinates + 1 :].reshape(-1, _DIGITS)
    if not num_survivors <= code_sum <= num_survivors * base:
        raise RoundAbortedError("the sum of the weights is out of range")
    largest = np.abs(coordinates).max(initial=0)
    totals = digits[:, 0] * base + digits[:, 1]
    low = digits[:, 1]
    if (
        largest > code_sum
        or (np.abs(totals) > code_sum * base).any()
        or (low < 0).any()
        or (low > num_survivors * (base - 1)).any()
    ):
        raise RoundAbortedError("a sum is larger than its clients can make it")
    shares = totals / (code_sum * base)
    *metrics, clipped = shares.tolist()
    return Decoded(
        mean=decode_mean(coordinates, code_sum, scale.clip),
        weight_sum=code_sum * scale.max_weight / base,
        metrics=tuple(METRIC_CLIP * share for share in metrics),
        clipped_fraction=clipped,
    )
