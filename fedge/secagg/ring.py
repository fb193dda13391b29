"""Values as ring elements: weigh, clip, round, and read the sum back.

A client's update becomes integers modulo 2^R that add up exactly, so that the sum
under masks is the integer sum, bit for bit. Every coordinate is multiplied by the
client's weight before it is rounded; the summed weight travels as one more coordinate
and divides at the end. Here are the profiles (how many bits), the encoding and the
decoding; how elements lie on the wire is in `packing`, masks are in `keystream`. Not in
here: random keys, which the caller brings from the operating system.

Elements live in uint32 (uint16 for R = 16), in two's complement; arithmetic wraps, and
the reduction modulo 2^R happens when they are packed.

Source: Bonawitz et al., CCS 2017, section 4 (sums modulo R); stochastic rounding as in
Konecny et al. (2016), arXiv:1610.05492, section 3.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fedge.arrays import Float32, Float64, Int64, check_finite
from fedge.errors import ConfigError, MisuseError
from fedge.secagg.keystream import KEY_BYTES, Suite, cipher_at

RingArray = NDArray[np.unsignedinteger]

RING_BITS = (16, 20, 24, 32)
# Codes are rounded in int32 fixed point: 16 bits before the point and 16 behind it.
MAX_VALUE_BITS = 16
_FRACTION_BITS = 16
_BLOCK = 1 << 15  # 256 KB of float64: stays in the second-level cache


@dataclass(frozen=True, slots=True)
class Profile:
    """How many bits a sum and a single code have.

    Attributes:
        ring_bits: R, one of 16, 20, 24, 32: sums are known modulo 2^R.
        value_bits: b in [2, 16], b < R: codes lie in [-Q, Q] with Q = 2^(b-1) - 1.
    """

    ring_bits: int
    value_bits: int

    def __post_init__(self) -> None:
        if self.ring_bits not in RING_BITS:
            raise ConfigError(f"ring_bits: {self.ring_bits} not one of {RING_BITS}")
        highest = min(MAX_VALUE_BITS, self.ring_bits - 1)
        if not 2 <= self.value_bits <= highest:
            raise ConfigError(f"value_bits: {self.value_bits} not in [2, {highest}]")

    @property
    def max_code(self) -> int:
        """Q, the largest code: 2^(b-1) - 1."""
        return (1 << (self.value_bits - 1)) - 1

    @property
    def dtype(self) -> type[np.uint16] | type[np.uint32]:
        """The machine word of one element."""
        return np.uint16 if self.ring_bits == 16 else np.uint32

    @property
    def max_clients(self) -> int:
        """The largest n with n * Q < 2^(R-1)."""
        return ((1 << (self.ring_bits - 1)) - 1) // self.max_code

    def bytes_for(self, size: int) -> int:
        """Return how many bytes `size` packed elements take."""
        return (size * self.ring_bits + 7) // 8


DEFAULT_PROFILE = "r24"  # 16-bit codes, three bytes each, up to 256 clients
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "r16": Profile(ring_bits=16, value_bits=8),
        "r20": Profile(ring_bits=20, value_bits=12),
        "r24": Profile(ring_bits=24, value_bits=16),
        "r32": Profile(ring_bits=32, value_bits=16),
    }
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One client's update as ring elements.

    Attributes:
        codes: two's complement, uint32 (uint16 for R = 16), shape (d,). Not yet masked:
            a secret, therefore never shown.
        clipped_fraction: share of the values that were outside [-clip, clip].
    """

    codes: RingArray = field(repr=False)
    clipped_fraction: float


def check_fits(profile: Profile, num_clients: int) -> None:
    """Raise ConfigError unless n * Q < 2^(R-1), so that no sum can overflow.

    Guarantee: what passes here decodes to the exact integer sum.
    """
    if num_clients < 1:
        raise ConfigError(f"num_clients must be >= 1, got {num_clients}")
    if num_clients <= profile.max_clients:
        return
    fitting = [n for n, p in PROFILES.items() if num_clients <= p.max_clients]
    remedy = f"take profile {' or '.join(fitting)}" if fitting else "take fewer clients"
    raise ConfigError(
        f"{num_clients} clients overflow a {profile.ring_bits}-bit ring with "
        f"{profile.value_bits}-bit values, which holds {profile.max_clients}; {remedy}"
    )


def weight_code_of(weight: float, w_max: float, profile: Profile) -> int:
    """Return round(weight / w_max * Q), at least 1 and at most Q.

    Raises:
        ConfigError: weight not in (0, w_max]. The message leaves the weight out: how
            much data a client has is its secret.
    """
    if not (math.isfinite(w_max) and w_max > 0.0):
        raise ConfigError(f"w_max must be finite and > 0, got {w_max}")
    if not 0.0 < weight <= w_max:
        raise ConfigError(
            f"a client's weight must be in (0, w_max = {w_max}]; "
            "raise w_max for the whole cohort, or cap the weight on the client"
        )
    return min(max(round(weight / w_max * profile.max_code), 1), profile.max_code)


def encode_fraction(value: float, profile: Profile) -> int:
    """Return round(value * Q) for an extra coordinate, value in [0, 1].

    Raises:
        ValueError: not in [0, 1]; the value itself is not shown.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError("an extra coordinate must be in [0, 1]; scale it first")
    return round(value * profile.max_code)


def encode(
    values: Float32,
    *,
    clip: float,
    weight_code: int,
    profile: Profile,
    noise_key: bytes,
) -> Encoded:
    """Return values / clip * weight_code, rounded at random to integers.

    Rounded up with the probability of the fraction, so that errors of a cohort average
    out. Noise comes from ChaCha20: as fast as AES where there is AES hardware, and not
    slow where there is none.

    Guarantee: every code is in [-weight_code, weight_code] and less than 1 away from
    the exact scaled value (clipped to that interval), and its expectation is within
    2^-17 of it, which is finer than float32 itself for codes above 2^7.

    Args:
        values: float32, shape (d,).
        clip: largest magnitude that is represented, > 0; beyond it values are clipped.
        weight_code: in [1, Q], from `weight_code_of`.
        profile: the ring.
        noise_key: 32 bytes, fresh or derived from the values: rounding hides nothing,
            the masks do.

    Raises:
        ValueError: wrong shape, or values that are not finite (their count is given).
        ConfigError: clip is not a finite number > 0.
        MisuseError: weight_code or noise_key is not what it must be.
    """
    _check_encode(values, clip, weight_code, profile, noise_key)
    beyond = _num_beyond(values, clip)
    codes = np.empty(values.size, profile.dtype)
    signed = codes.view(np.int16 if profile.ring_bits == 16 else np.int32)
    limit = float(weight_code << _FRACTION_BITS)
    scaled = np.empty(min(_BLOCK, values.size), np.float64)
    fixed, noise = np.empty(scaled.size, np.int32), np.empty(scaled.size, "<u2")
    cipher, zeros = (
        cipher_at(noise_key, Suite.CHACHA20, start_byte=0),
        bytes(2 * _BLOCK),
    )
    for start in range(0, values.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        count = values[part].size
        x, y, up = scaled[:count], fixed[:count], noise[:count]
        np.multiply(values[part], limit / clip, out=x, dtype=np.float64)
        if beyond:  # or the conversion to int32 would be undefined
            np.clip(x, -limit, limit, out=x)
        np.rint(x, out=x)
        np.copyto(y, x, casting="unsafe")
        cipher.update_into(memoryview(zeros)[: up.nbytes], up.view(np.uint8).data)
        np.add(y, up, out=y)
        np.right_shift(y, _FRACTION_BITS, out=y)
        np.clip(y, -weight_code, weight_code, out=y)
        np.copyto(signed[part], y, casting="same_kind")
    return Encoded(codes, beyond / values.size if values.size else 0.0)


def _check_encode(
    values: Float32, clip: float, weight_code: int, profile: Profile, noise_key: bytes
) -> None:
    if values.ndim != 1:
        raise ValueError(f"values must have one axis, got shape {values.shape}")
    if not (math.isfinite(clip) and clip > 0.0):
        raise ConfigError(f"clip must be finite and > 0, got {clip}")
    if not 1 <= weight_code <= profile.max_code:
        raise MisuseError(f"weight_code must be in [1, {profile.max_code}]")
    if len(noise_key) != KEY_BYTES:
        raise MisuseError(f"noise_key: {len(noise_key)} bytes, need {KEY_BYTES}")


def _num_beyond(values: Float32, clip: float) -> int:
    """Return how many values lie outside [-clip, clip]; raise if one is not finite."""
    if not values.size:
        return 0
    largest = max(float(values.max()), -float(values.min()))
    if not math.isfinite(largest):
        check_finite(values, "update")
    if largest <= clip:
        return 0
    # In float64: in float32 the clip might round up to the very value that is beyond.
    return int(np.count_nonzero(np.abs(values) > np.float64(clip)))


def decode_sum(total: RingArray, profile: Profile) -> Int64:
    """Return the integers behind ring elements, sign-extended from R bits.

    Bits above R are ignored, so a sum in uint32 need not be reduced first.

    Guarantee: for up to `profile.max_clients` encoded vectors, the exact sum.

    Args:
        total: uint32 (uint16 for R = 16), shape (d,).
        profile: the ring.

    Returns:
        int64, shape (d,).

    Raises:
        MisuseError: another dtype.
    """
    if total.dtype != profile.dtype:
        raise MisuseError(f"dtype {total.dtype}, need {np.dtype(profile.dtype)}")
    signed = np.int16 if profile.ring_bits == 16 else np.int32
    shift = 8 * total.itemsize - profile.ring_bits
    sums = np.left_shift(total, shift).view(signed).astype(np.int64)
    return np.right_shift(sums, shift, out=sums)


def decode_mean(code_sums: Int64, weight_code_sum: int, clip: float) -> Float64:
    """Return the weighted mean of the values: code_sums * clip / weight_code_sum.

    Guarantee: off by at most n * clip / weight_code_sum for n clients; for one client
    that is clip / weight_code.

    Args:
        code_sums: int64, shape (d,), from `decode_sum`.
        weight_code_sum: sum of the clients' weight codes, > 0.
        clip: the clip all of them encoded with.

    Raises:
        ValueError: weight_code_sum is not positive.
    """
    if weight_code_sum <= 0:
        raise ValueError(f"weight_code_sum must be > 0, got {weight_code_sum}")
    return code_sums.astype(np.float64) * (clip / weight_code_sum)
