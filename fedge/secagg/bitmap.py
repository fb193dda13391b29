"""A set of participants as one bit each, in the order of the roster."""

from collections.abc import Iterable

import numpy as np

from fedge.errors import PeerError


def pack_set(members: Iterable[int], size: int) -> bytes:
    """Return a bitmap of `size` bits with the bits in `members` set."""
    bits = np.zeros(size, np.bool_)
    bits[list(members)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_set(bitmap: bytes, size: int) -> frozenset[int]:
    """Return the positions of the set bits.

    Raises:
        PeerError: wrong length, or a bit beyond `size` is set.
    """
    if len(bitmap) != (size + 7) // 8:
        raise PeerError(f"bitmap: {len(bitmap)} bytes do not hold {size} bits")
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    if bits[size:].any():
        raise PeerError("bitmap: a bit beyond the last participant is set")
    return frozenset(np.flatnonzero(bits[:size]).tolist())
