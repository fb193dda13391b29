"""A structure and the byte strings it refers to, as one byte string.

The same as a frame (`frames`), for two machines that share no memory: structure as
JSON, then the bytes one after the other. Nothing is pickled.
"""

from collections.abc import Sequence

from fedge.flower.codec import Plain, from_text, to_text

_PREFIX_BYTES = 8


def pack(structure: Plain, blobs: Sequence[bytes] = ()) -> bytes:
    """Return a structure and its byte strings as one."""
    header = to_text([structure, [len(blob) for blob in blobs]])
    return b"".join([len(header).to_bytes(_PREFIX_BYTES, "little"), header, *blobs])


def unpack(data: bytes) -> tuple[Plain, list[bytes]]:
    """Undo `pack`."""
    position = _PREFIX_BYTES + int.from_bytes(data[:_PREFIX_BYTES], "little")
    structure, sizes = from_text(data[_PREFIX_BYTES:position])
    blobs = []
    for size in sizes:
        blobs.append(data[position : position + size])
        position += size
    return structure, blobs
