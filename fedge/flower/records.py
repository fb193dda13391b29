"""Flower's records and our arrays: every array is checked before it is believed.

Flower's own `Array.numpy()` does not compare the declared shape with the payload and
lets a 64-byte header claim gigabytes. Here the header is read with a cap, compared with
the declaration and with the payload's length, and the array is a view of the bytes.
"""

import math
import re
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)

from fedge.arrays import AnyArray, Float32
from fedge.errors import PeerError

T = TypeVar("T")

_NUMPY = "numpy.ndarray"
_MAX_HEADER_BYTES = 4096
_MAX_DIMENSIONS = 32
MAX_REASON_LENGTH = 500
# Width of the field that holds the header's length, by magic and version.
_LENGTH_BYTES = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
# What numpy writes for arrays of numbers, and nothing else. numpy's own reader hands
# the text to Python's tokenizer and parser, which a stranger can make raise anything.
_HEADER = re.compile(
    rb"\{'descr': '([<>|][fiub]\d{1,2})', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,18}(?:, ?|(?=\))))*)\), \} *\n"
)


def array_of(array: AnyArray) -> Array:
    """Return a Flower Array with the values of `array`."""
    # Not `ascontiguousarray`: it gives a number without axes an axis.
    return Array(np.asarray(array, order="C"))


def read_array(array: Array) -> AnyArray:
    """Return the values of a Flower Array as a read-only view of its bytes.

    Guarantee: the result has the declared dtype and shape, and nothing larger than the
    message itself was allocated.

    Raises:
        PeerError: not a number array in numpy's format, or the header, the declaration
            and the payload do not agree.
    """
    if array.stype != _NUMPY:
        raise PeerError(f"array: serialization {array.stype[:40]!r}, need {_NUMPY!r}")
    dtype, is_fortran, shape, start = _read_header(array.data)
    if str(dtype) != array.dtype:
        raise PeerError(f"array: dtype {dtype}, declared {array.dtype[:40]}")
    if shape != tuple(array.shape):
        declared = tuple(array.shape)[: _MAX_DIMENSIONS + 1]
        raise PeerError(f"array: shape {shape}, declared {declared}")
    payload = memoryview(array.data)[start:]
    if len(payload) != math.prod(shape) * dtype.itemsize:
        raise PeerError(f"array: {len(payload)} bytes do not make {dtype} {shape}")
    flat = np.frombuffer(payload, dtype)
    try:
        values: AnyArray = flat.reshape(shape, order="F" if is_fortran else "C")
    except ValueError as exc:  # empty, and the other dimensions overflow
        raise PeerError(f"array: shape {shape} is too large") from exc
    return values


def _read_header(data: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Return dtype, Fortran order, shape and where the values begin."""
    width = _LENGTH_BYTES.get(data[:8], 0)
    end = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    found = None
    if width and end <= min(len(data), _MAX_HEADER_BYTES):
        found = _HEADER.fullmatch(data, 8 + width, end)
    if found is None:
        raise PeerError("array: the header is not that of a numpy array of numbers")
    sizes = [int(part) for part in found[3].split(b",") if part.strip()]
    if len(sizes) > _MAX_DIMENSIONS:
        raise PeerError(f"array: {len(sizes)} dimensions, at most {_MAX_DIMENSIONS}")
    try:
        dtype: np.dtype[Any] = np.dtype(found[1].decode())
    except TypeError as exc:
        raise PeerError(f"array: no such dtype {found[1].decode()}") from exc
    return dtype, found[2] == b"True", tuple(sizes), end


def read_vector(record: ArrayRecord, name: str, size: int) -> Float32:
    """Return the float32 vector called `name`, shape (size,).

    Raises:
        PeerError: it is missing, of another dtype or size, or not finite.
    """
    if name not in record:
        raise PeerError(f"array {name!r} is missing")
    vector = read_array(record[name])
    if vector.dtype != np.float32 or vector.shape != (size,):
        raise PeerError(
            f"array {name!r}: {vector.dtype} {vector.shape}, need float32 ({size},)"
        )
    if not np.isfinite(vector).all():
        raise PeerError(f"array {name!r}: holds values that are not finite")
    return vector


def content_of_reply(reply: Message) -> RecordDict:
    """Return a reply's content; raise PeerError if it is an error reply."""
    if reply.has_error():
        lines = (reply.error.reason or "").strip().splitlines()
        raise PeerError(lines[-1][:MAX_REASON_LENGTH] if lines else "no reason given")
    return reply.content


def payload_bytes(content: RecordDict) -> int:
    """Return the size of a message's content in bytes, without transport overhead."""
    total = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(array.data) for array in record.values())
        else:
            total += sum(len(k) + _value_bytes(value) for k, value in record.items())
    return total


def _value_bytes(value: object) -> int:
    # Not Flower's count_bytes: it raises on an empty text or list.
    if isinstance(value, list):
        return sum(_value_bytes(part) for part in value)
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    return 1 if isinstance(value, bool) else 8


def private_copy(content: RecordDict) -> RecordDict:
    """Return a content whose records can be changed without changing the original.

    Arrays are shared: Flower never writes into an Array's bytes.
    """
    copy = RecordDict()
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            copy[key] = ArrayRecord(dict(record))
        elif isinstance(record, MetricRecord):
            copy[key] = MetricRecord({k: _own(v) for k, v in record.items()})
        else:
            copy[key] = ConfigRecord({k: _own(v) for k, v in record.items()})
    return copy


def _own(value: T) -> T:
    return cast(T, value.copy()) if isinstance(value, list) else value
