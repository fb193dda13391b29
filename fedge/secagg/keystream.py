"""Masks: the keystream of a cipher, added to or subtracted from a vector.

A mask is the keystream under a fresh 32-byte key, read as little-endian ring elements:
AES-256 in counter mode from counter block zero, or ChaCha20 from a zero nonce and block
counter. Both can start anywhere, so a vector is cut into blocks that stay in the cache
and into ranges for threads. Deriving the keys is not in here.

Where a range begins at byte 0, AES comes from GCM, which computes the same stream up
to twice as fast on processors with vector AES: it cannot start in the middle, which
further threads need. Its tag is never asked for, and nothing is authenticated.

Source: NIST SP 800-38A (CTR), SP 800-38D section 7.1 (GCM), RFC 8439 (ChaCha20);
Bonawitz et al., CCS 2017.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from typing import assert_never

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM
from numpy.typing import NDArray

from fedge.errors import MisuseError

KEY_BYTES = 32
# Half of a small second-level cache; at 4 KB the cost of calls doubles the time.
BLOCK_BYTES = 1 << 18
# One ChaCha20 block, four AES blocks: where a keystream can start.
ALIGNMENT_BYTES = 64
# ChaCha20 counts its 64-byte blocks in 32 bits.
MAX_MASK_BYTES = 1 << 38
# GCM counts its blocks in 32 bits, and begins with block 2.
_GCM_SKIPS = 2 * 16
MAX_GCM_BYTES = (1 << 36) - 64


class Suite(IntEnum):
    """The cipher a mask comes from; the number goes into the mask's key."""

    AES256_CTR = 1
    CHACHA20 = 2


@dataclass(frozen=True, slots=True)
class MaskSeed:
    """One mask: its key, its cipher, and whether it is added or subtracted.

    Attributes:
        key: 32 bytes, used for this one mask only; never shown.
        suite: the cipher.
        sign: +1 to add, -1 to subtract.
    """

    key: bytes = field(repr=False)
    suite: Suite
    sign: int

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise MisuseError(f"mask key: {len(self.key)} bytes, need {KEY_BYTES}")
        if self.sign not in (-1, 1):
            raise MisuseError(f"sign must be +1 or -1, got {self.sign}")


def check_mask_length(num_bytes: int) -> None:
    """Raise MisuseError if one key cannot give a keystream this long."""
    if not 0 <= num_bytes < MAX_MASK_BYTES:
        raise MisuseError(
            f"a mask of {num_bytes} bytes is not in [0, {MAX_MASK_BYTES}): "
            "the block counter would repeat"
        )


def keystream(key: bytes, suite: Suite, num_bytes: int) -> bytes:
    """Return the first bytes of the keystream, at once: the definition of a mask.

    Raises:
        MisuseError: the key is not 32 bytes, or num_bytes is 256 GiB or more.
    """
    if len(key) != KEY_BYTES:
        raise MisuseError(f"key: {len(key)} bytes, need {KEY_BYTES}")
    check_mask_length(num_bytes)
    return cipher_at(key, suite, start_byte=0).update(bytes(num_bytes))


def apply_masks(
    accumulator: NDArray[np.unsignedinteger],
    seeds: Sequence[MaskSeed],
    *,
    threads: int = 1,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Add or subtract every mask, in place; arithmetic wraps.

    Blocks outside, seeds inside: a block of the vector and the block of keystream stay
    in the cache while all masks pass over them.

    Guarantee: the same bits as adding `keystream` of each seed one after the other, for
    every size, block size and number of threads.

    Args:
        accumulator: uint16 or uint32, shape (m,), contiguous; changed.
        seeds: the masks.
        threads: how many ranges of the vector are worked on at the same time.
        block_bytes: a positive multiple of 64.

    Raises:
        MisuseError: a wrong array, number of threads or block size; nothing is changed.
    """
    _check_accumulator(accumulator)
    if threads < 1:
        raise MisuseError(f"threads must be >= 1, got {threads}")
    if block_bytes < 1 or block_bytes % ALIGNMENT_BYTES:
        raise MisuseError(f"block_bytes: {block_bytes} is no multiple of 64")
    step = block_bytes // accumulator.itemsize
    starts = _range_starts(accumulator, threads)
    parts = [accumulator[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    if len(parts) == 1:
        _mask_range(parts[0], 0, seeds, step)
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        jobs = [
            pool.submit(_mask_range, part, start, seeds, step)
            for part, start in zip(parts, starts, strict=True)
        ]
        for job in jobs:
            job.result()


def _check_accumulator(accumulator: NDArray[np.unsignedinteger]) -> None:
    if accumulator.dtype not in (np.uint16, np.uint32) or accumulator.ndim != 1:
        raise MisuseError(
            f"need a uint16 or uint32 vector, got {accumulator.dtype} "
            f"of shape {accumulator.shape}"
        )
    if not (accumulator.flags.c_contiguous and accumulator.flags.writeable):
        raise MisuseError("the accumulator must be contiguous and writeable")
    check_mask_length(accumulator.nbytes)


def _range_starts(
    accumulator: NDArray[np.unsignedinteger], threads: int
) -> Sequence[int]:
    """Return where each thread's range begins, on multiples of 64 bytes."""
    elements = ALIGNMENT_BYTES // accumulator.itemsize
    chunks = -(-accumulator.size // elements)
    width = max(1, -(-chunks // threads)) * elements
    return range(0, max(1, accumulator.size), width)


def _mask_range(
    part: NDArray[np.unsignedinteger],
    start: int,
    seeds: Sequence[MaskSeed],
    step: int,
) -> None:
    """Mask `part`, which begins at element `start` of the whole vector."""
    start_byte = start * part.itemsize
    ciphers = [
        (
            _stream_of(seed, start_byte, part.nbytes),
            np.add if seed.sign > 0 else np.subtract,
        )
        for seed in seeds
    ]
    words = np.empty(min(step, part.size), part.dtype.newbyteorder("<"))
    zeros, stream = memoryview(bytes(words.nbytes)), words.view(np.uint8).data
    for first in range(0, part.size, step):
        target = part[first : first + step]
        mask, length = words[: target.size], target.nbytes
        blank, fresh = zeros[:length], stream[:length]
        for cipher, operation in ciphers:
            cipher.update_into(blank, fresh)
            operation(target, mask, out=target)


def _stream_of(
    seed: MaskSeed, start_byte: int, num_bytes: int
) -> "CipherContext | _AesFromGcm":
    if (
        seed.suite is Suite.AES256_CTR
        and start_byte == 0
        and num_bytes <= MAX_GCM_BYTES
    ):
        return _AesFromGcm(seed.key)
    return cipher_at(seed.key, seed.suite, start_byte=start_byte)


class _AesFromGcm:
    """AES-256-CTR from counter block 0 on, the fast way.

    Under a nonce of 96 zero bits GCM's first counter block is 2 (block 1 is for the
    tag), so the first two blocks come from CTR and all others from GCM.
    """

    def __init__(self, key: bytes) -> None:
        counter_mode = Cipher(AES(key), CTR(bytes(16))).encryptor()
        self._head = counter_mode.update(bytes(_GCM_SKIPS))
        self._rest = Cipher(AES(key), GCM(bytes(12))).encryptor()

    def update_into(self, zeros: memoryview, out: memoryview) -> None:
        """Write the next len(zeros) bytes of keystream."""
        skip = min(len(self._head), len(zeros))
        if skip:
            out[:skip], self._head = self._head[:skip], self._head[skip:]
        self._rest.update_into(zeros[skip:], out[skip:])


def cipher_at(key: bytes, suite: Suite, *, start_byte: int) -> CipherContext:
    """Return a cipher that turns zeros into the keystream from `start_byte` on.

    Args:
        key: 32 bytes.
        suite: the cipher.
        start_byte: a multiple of 64, below 256 GiB.
    """
    match suite:
        case Suite.AES256_CTR:
            counter = (start_byte // 16).to_bytes(16, "big")
            return Cipher(AES(key), CTR(counter)).encryptor()
        case Suite.CHACHA20:
            counter = (start_byte // 64).to_bytes(4, "little")
            return Cipher(ChaCha20(key, counter + bytes(12)), mode=None).encryptor()
        case _:
            assert_never(suite)
