"""The lossless last step: one zstd frame, and its bounded reverse on the device.

General-purpose entropy coding is within a few percent of the entropy of int8 weights,
pruned or not, so there is no coder of our own.
"""

import zstandard

from fedge.errors import VerificationError

_SMALLEST_WINDOW_BYTES = 1024  # zstd refuses a lower limit
# Nothing that small is a danger; above it, no trained model packs so well (even 95 % of
# zeros in int8 give 12).
FREE_BYTES = 32 * 1024 * 1024
MAX_RATIO = 256


def pack(model: bytes, *, level: int) -> bytes:
    """Return the model as one zstd frame.

    Guarantee: the same model and level give the same bytes (of one zstd version).

    Args:
        model: any bytes.
        level: effort, 1 to 22.
    """
    return zstandard.ZstdCompressor(level=level, write_checksum=False).compress(model)


def unpack(packed: bytes, *, max_bytes: int) -> bytes:
    """Return what `pack` packed, without trusting it.

    Guarantee: allocates no more than about `max_bytes` for the result, whatever
    `packed` claims, and nothing for a frame that says it is a bomb; the frame is the
    whole of `packed`.

    Args:
        packed: one zstd frame that states its size.
        max_bytes: the largest model that is accepted.

    Raises:
        VerificationError: not such a frame, damaged, cut off, followed by more bytes,
            larger than `max_bytes`, or more than `FREE_BYTES` and `MAX_RATIO` times as
            large as `packed`.
    """
    size = _stated_size(packed)
    if size > max_bytes:  # an unknown size reads as 2**64 - 1
        raise VerificationError(
            f"packed model: states {size} bytes, at most {max_bytes} are accepted"
        )
    if size > max(FREE_BYTES, MAX_RATIO * len(packed)):
        raise VerificationError(
            f"packed model: {len(packed)} bytes state {size}; above {FREE_BYTES}, at "
            f"most {MAX_RATIO} times as many are accepted"
        )
    return _decompress(packed, max_bytes)


def unpack_exactly(packed: bytes, *, num_bytes: int) -> bytes:
    """Return what `pack` packed, of a size that is known: how well it packs is no sign.

    Raises:
        VerificationError: as `unpack`, or it has another size.
    """
    size = _stated_size(packed)
    if size != num_bytes:
        raise VerificationError(
            f"packed difference: states {size} bytes, its base has {num_bytes}"
        )
    return _decompress(packed, num_bytes)


def _stated_size(packed: bytes) -> int:
    try:
        size: int = zstandard.get_frame_parameters(packed).content_size
    except zstandard.ZstdError as exc:
        raise VerificationError("packed model: not a zstd frame") from exc
    return size


def _decompress(packed: bytes, max_bytes: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(
        max_window_size=max(max_bytes, _SMALLEST_WINDOW_BYTES)
    )
    try:
        return decompressor.decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise VerificationError(
            f"packed model: damaged, cut off or followed by other bytes ({exc})"
        ) from exc
