"""A walk over protobuf's wire format, with a cap on the number of fields.

Nothing is copied: a field's bytes are a view of the message. A parser that builds an
object for every field needs up to a hundred times the memory of the file, so a file of
many tiny fields is refused before such a parser sees it.

Source: protobuf.dev, Encoding.
"""

from collections.abc import Iterator

from fedge.errors import DataError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# An int8 MobileNet has 1000. Reading 16 000 takes 30 ms.
MAX_FIELDS = 16_384
_SIZED = (VARINT, BYTES)
_KNOWN = (VARINT, FIXED64, BYTES, FIXED32)
_MAX_VARINT_BYTES = 10
_LONG = 0x80  # a byte with this bit is not a varint's last one
_WORD = 1 << 64


class FieldBudget:
    """How many more fields a file may have; one per file.

    Attributes:
        most: fields that it may have in all.
        left: fields, >= 0.
    """

    def __init__(self, most: int = MAX_FIELDS) -> None:
        self.most = self.left = most


def fields(
    message: memoryview, budget: FieldBudget
) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, varint or bytes) of one message.

    Raises:
        DataError: cut off, not protobuf, or more fields than the budget has.
    """
    at, end = 0, len(message)
    while at < end:
        if budget.left == 0:
            raise DataError(f"model file: more than {budget.most} fields")
        budget.left -= 1
        key = message[at]
        at += 1
        if key >= _LONG:
            key, at = _varint(message, at - 1)
        number, wire = key >> 3, key & 7
        if number == 0 or wire not in _KNOWN:
            raise DataError(f"model file: not ONNX (wire type {wire} at byte {at})")
        size = 8 if wire == FIXED64 else 4
        if wire in _SIZED:
            if at < end and message[at] < _LONG:
                size = message[at]
                at += 1
            else:
                size, at = _varint(message, at)
        if wire == VARINT:
            yield number, wire, size
            continue
        if at + size > end:
            raise DataError(f"model file: cut off or not ONNX (at byte {at})")
        yield number, wire, message[at : at + size]
        at += size


def signed(value: int) -> int:
    """Return what a varint means as a 64-bit number with sign."""
    value %= _WORD
    return value - _WORD if value >= _WORD // 2 else value


def varints(packed: memoryview) -> Iterator[int]:
    """Yield the numbers, with sign, of a packed field; DataError if it is cut off."""
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield signed(value)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    end = len(message)
    value = 0
    for position in range(min(_MAX_VARINT_BYTES, end - at)):
        byte = message[at + position]
        value |= (byte & 0x7F) << (7 * position)
        if byte < _LONG:
            return value, at + position + 1
    raise DataError(f"model file: cut off or not ONNX (at byte {at})")
