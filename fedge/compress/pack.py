"""The lossless last step: one zstd frame, and its bounded reverse on the device.

General-purpose entropy coding is within a few percent of the entropy of int8 weights,
pruned or not, so there is no coder of our own.
"""

import zstandard

from fedge.errors import VerificationError

_SMALLEST_WINDOW_BYTES = 1024  # zstd refuses a lower limit


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
    `packed` claims; the frame is the whole of `packed`.

    Args:
        packed: one zstd frame that states its size.
        max_bytes: the largest model that is accepted.

    Raises:
        VerificationError: not such a frame, damaged, cut off, followed by more bytes,
            or larger than `max_bytes`.
    """
    try:
        size = zstandard.get_frame_parameters(packed).content_size
    except zstandard.ZstdError as exc:
        raise VerificationError("packed model: not a zstd frame") from exc
    if size > max_bytes:  # an unknown size reads as 2**64 - 1
        raise VerificationError(
            f"packed model: states {size} bytes, at most {max_bytes} are accepted"
        )
    decompressor = zstandard.ZstdDecompressor(
        max_window_size=max(max_bytes, _SMALLEST_WINDOW_BYTES)
    )
    try:
        return decompressor.decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise VerificationError(
            f"packed model: damaged, cut off or followed by other bytes ({exc})"
        ) from exc
