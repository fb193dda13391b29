"""The protobuf wire format, as far as reading an ONNX file needs it.

Nothing is decoded that nobody asks for, large fields are stepped over, and the `onnx`
package is not needed on a device.
"""

from collections.abc import Iterator

from fedge.errors import DataError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, varint or bytes) of one message; fixed numbers as bytes.

    Raises:
        DataError: not a protobuf message, or cut off.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise DataError(f"model file: not ONNX (wire type {kind} at byte {at})")
        if at + size > len(message):
            raise DataError(f"model file: cut off or not ONNX (at byte {at})")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for position in range(_MAX_VARINT_BYTES):
        if at + position >= len(message):
            break
        byte = message[at + position]
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, at + position + 1
    raise DataError(f"model file: cut off or not ONNX (at byte {at})")
