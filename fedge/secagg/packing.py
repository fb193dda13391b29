"""Ring elements on the wire: R bits each, in planes.

First the low 16 bits of all elements, then the high bits of all elements: a byte each
for R = 24, half a byte for R = 20 (the even element in the low half). Planes are copied
by vector instructions, ten times faster than elements of three bytes each. R = 16
and R = 32 are one plane. Everything is little-endian. What is not in here: encoding and
masks. Data from a peer is checked before a single element of it is used.
"""

import numpy as np

from fedge.arrays import UInt8
from fedge.errors import MisuseError, PeerError
from fedge.secagg.ring import Profile, RingArray

_BLOCK = 1 << 15  # elements, an even number; a few such blocks stay in the cache


def pack(codes: RingArray, profile: Profile) -> bytes:
    """Return the elements modulo 2^R, `profile.bytes_for(size)` bytes.

    Guarantee: `unpack` gives the elements modulo 2^R back.

    Args:
        codes: uint32 (uint16 for R = 16), shape (m,).
        profile: the ring.

    Raises:
        MisuseError: another dtype or shape.
    """
    _check_words(codes, profile)
    if profile.ring_bits in (16, 32):
        return codes.astype(codes.dtype.newbyteorder("<"), copy=False).tobytes()
    size = codes.size
    packed = np.empty(profile.bytes_for(size), np.uint8)
    low, high = packed[: 2 * size].view("<u2"), packed[2 * size :]
    for start in range(0, size, _BLOCK):
        part = codes[start : start + _BLOCK]
        np.copyto(low[start : start + _BLOCK], part, casting="unsafe")
        bits = (part >> 16).astype(np.uint8)
        if profile.ring_bits == 24:
            high[start : start + _BLOCK] = bits
        else:
            high[start // 2 : (start + _BLOCK) // 2] = _nibbles_packed(bits)
    return packed.tobytes()


def unpack(data: bytes, size: int, profile: Profile) -> RingArray:
    """Return the elements, in [0, 2^R), uint32 (uint16 for R = 16), shape (size,).

    Raises:
        PeerError: not exactly the bytes that `size` elements take, or a bit is set that
            belongs to no element.
    """
    codes = np.zeros(size, profile.dtype)
    add_packed(codes, data, profile)
    return codes


def add_packed(accumulator: RingArray, data: bytes, profile: Profile) -> None:
    """Add packed elements to the accumulator, in place; arithmetic wraps.

    Works block by block: no array of the vector's size is made.

    Guarantee: the same as adding `unpack(data)`; after an error nothing has changed.

    Args:
        accumulator: uint32 (uint16 for R = 16), shape (m,); changed.
        data: `profile.bytes_for(m)` bytes from a peer.
        profile: the ring.

    Raises:
        PeerError: see `unpack`.
        MisuseError: the accumulator has another dtype or shape.
    """
    _check_words(accumulator, profile)
    size = accumulator.size
    check_packed(data, size, profile)
    if profile.ring_bits in (16, 32):
        accumulator += np.frombuffer(data, f"<u{profile.ring_bits // 8}")
        return
    low = np.frombuffer(data, "<u2", count=size)
    high = np.frombuffer(data, np.uint8, offset=2 * size)
    for start in range(0, size, _BLOCK):
        part = accumulator[start : start + _BLOCK]
        words = _high_part(high, start, part.size, profile).astype(np.uint32)
        np.left_shift(words, 16, out=words)
        words |= low[start : start + _BLOCK].astype(np.uint32)
        part += words


def check_packed(data: bytes, size: int, profile: Profile) -> None:
    """Raise PeerError unless these bytes are `size` packed elements."""
    needed = profile.bytes_for(size)
    if len(data) != needed:
        raise PeerError(f"packed vector: {len(data)} bytes, need {needed}")
    if profile.ring_bits == 20 and size % 2 and data[-1] >> 4:
        raise PeerError("packed vector: bits are set behind the last element")


def _check_words(codes: RingArray, profile: Profile) -> None:
    if codes.dtype != profile.dtype or codes.ndim != 1:
        raise MisuseError(
            f"need a vector of {np.dtype(profile.dtype)}, got {codes.dtype} "
            f"of shape {codes.shape}"
        )


def _nibbles_packed(high: UInt8) -> UInt8:
    """Return the low halves of these bytes, two to a byte."""
    packed: UInt8 = high[0::2] & np.uint8(15)
    packed[: high.size // 2] |= high[1::2] << np.uint8(4)
    return packed


def _high_part(high: UInt8, start: int, count: int, profile: Profile) -> UInt8:
    """Return the bits above 16 of `count` elements from the even number `start` on."""
    if profile.ring_bits == 24:
        return high[start : start + count]
    pairs = high[start // 2 : (start + count + 1) // 2]
    nibbles = np.empty(2 * pairs.size, np.uint8)
    nibbles[0::2] = pairs & np.uint8(15)
    nibbles[1::2] = pairs >> np.uint8(4)
    return nibbles[:count]
