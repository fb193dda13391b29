"""From the model that a device has to the next one: the difference, byte by byte.

Two files of one architecture, quantized with the same scales, have the same length and
differ in the bytes of the weights that moved, most of them by a step or two. Their
difference modulo 256 packs to a fraction of the file. A device adds it to the file it
has, and checks the digest of what comes out.

Not in here: how the next file is made so that few bytes differ (`requantize`), and the
signature, which is over the digest of the rebuilt file.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from fedge.compress.pack import pack, unpack, unpack_exactly
from fedge.errors import DigestMismatchError, VerificationError

_MAGIC = b"FEDGE-D1"
_FULL, _DIFFERENCE = b"f", b"d"
_DIGEST_BYTES = 32
_HEADER_BYTES = len(_MAGIC) + 1 + 2 * _DIGEST_BYTES


@dataclass(frozen=True, slots=True)
class DeltaHeader:
    """What a delta says of itself, before anything is unpacked.

    Attributes:
        is_full: whether it is a whole file, which needs no base.
        base_sha256: digest of the file it is added to; zeros if there is none.
        sha256: digest of the file that comes out.
    """

    is_full: bool
    base_sha256: bytes
    sha256: bytes


def make_delta(base: bytes | None, new: bytes, *, level: int) -> bytes:
    """Return what turns `base` into `new`: a difference, or all of `new` if smaller.

    Guarantee: `apply_delta(base, make_delta(base, new, level=l), ...)` is `new`; the
    same arguments give the same bytes (of one zstd version).

    Args:
        base: the file that the device has; None if it has none.
        new: the file that it shall have.
        level: effort of zstd, 1 to 22.
    """
    digest = hashlib.sha256(new).digest()
    full = _MAGIC + _FULL + bytes(_DIGEST_BYTES) + digest + pack(new, level=level)
    if base is None or len(base) != len(new):
        return full
    difference = np.frombuffer(new, np.uint8) - np.frombuffer(base, np.uint8)
    packed = pack(difference.tobytes(), level=level)
    head = _MAGIC + _DIFFERENCE + hashlib.sha256(base).digest() + digest
    return min(full, head + packed, key=len)


def read_header(delta: bytes) -> DeltaHeader:
    """Return what a delta says of itself.

    Raises:
        VerificationError: it is none, or cut off.
    """
    kind = delta[len(_MAGIC) : len(_MAGIC) + 1]
    is_whole = len(delta) > _HEADER_BYTES and delta.startswith(_MAGIC)
    if not is_whole or kind not in (_FULL, _DIFFERENCE):
        raise VerificationError("delta: not a delta, or cut off")
    first = len(_MAGIC) + 1
    second = first + _DIGEST_BYTES
    return DeltaHeader(kind == _FULL, delta[first:second], delta[second:_HEADER_BYTES])


def apply_delta(base: bytes | None, delta: bytes, *, max_bytes: int) -> bytes:
    """Return the new file.

    Guarantee: the result has the digest that the delta states; no more than about twice
    `max_bytes` is allocated, whatever the delta claims.

    Args:
        base: the file the delta was made for; None if there is none.
        delta: may come from a stranger.
        max_bytes: the largest file that is accepted.

    Raises:
        DigestMismatchError: it was made for another base (ask for the full file), or
            something else comes out than it states.
        VerificationError: not a delta, damaged, cut off, or larger than `max_bytes`.
    """
    header = read_header(delta)
    if not header.is_full and (
        base is None or hashlib.sha256(base).digest() != header.base_sha256
    ):
        raise DigestMismatchError(
            "delta: it was made for another model than the one here; "
            "ask for the full file"
        )
    packed = delta[_HEADER_BYTES:]
    if header.is_full or base is None:
        result = unpack(packed, max_bytes=max_bytes)
    else:
        result = _added(base, packed, max_bytes)
    if hashlib.sha256(result).digest() != header.sha256:
        raise DigestMismatchError("delta: the rebuilt model has another digest")
    return result


def _added(base: bytes, packed: bytes, max_bytes: int) -> bytes:
    """Return base plus difference; as large as the base, which is known beforehand."""
    if len(base) > max_bytes:
        raise VerificationError(
            f"delta: its base has {len(base)} bytes, at most {max_bytes} are accepted"
        )
    difference = unpack_exactly(packed, num_bytes=len(base))
    total = np.frombuffer(base, np.uint8) + np.frombuffer(difference, np.uint8)
    return total.tobytes()
