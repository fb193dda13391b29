"""Flower's records and our arrays: every array is checked before it is believed.

Flower's own `Array.numpy()` does not compare the declared shape with the payload and
lets a 64-byte header claim gigabytes. Here the header is read with a cap, compared with
the declaration and with the payload's length, and the array is a view of the bytes.
"""

import math
from io import BytesIO

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

_NUMPY = "numpy.ndarray"
_MAX_HEADER_BYTES = 4096
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def array_of(array: AnyArray) -> Array:
    """Return a Flower Array with the values of `array`."""
    return Array(np.ascontiguousarray(array))


def read_array(array: Array) -> AnyArray:
    """Return the values of a Flower Array as a read-only view of its bytes.

    Guarantee: the result has the declared dtype and shape, and nothing larger than the
    message itself was allocated.

    Raises:
        PeerError: not a number array in numpy's format, or the header, the declaration
            and the payload do not agree.
    """
    if array.stype != _NUMPY:
        raise PeerError(f"array: serialization {array.stype!r}, need {_NUMPY!r}")
    stream = BytesIO(array.data[: _MAX_HEADER_BYTES + 16])
    try:
        read_header = _READ_HEADER[np.lib.format.read_magic(stream)]
        shape, fortran, dtype = read_header(stream, max_header_size=_MAX_HEADER_BYTES)
    except (ValueError, KeyError, EOFError) as exc:
        raise PeerError("array: the header is not that of a numpy array") from exc
    if dtype.kind not in "fiub" or str(dtype) != array.dtype:
        raise PeerError(f"array: dtype {dtype}, declared {array.dtype}")
    if tuple(shape) != tuple(array.shape):
        raise PeerError(f"array: shape {shape}, declared {tuple(array.shape)}")
    payload = memoryview(array.data)[stream.tell() :]
    if len(payload) != math.prod(shape) * dtype.itemsize:
        raise PeerError(f"array: {len(payload)} bytes do not make {dtype} {shape}")
    flat = np.frombuffer(payload, dtype)
    values: AnyArray = flat.reshape(shape, order="F" if fortran else "C")
    return values


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
        reason = (reply.error.reason or "no reason given").strip()
        raise PeerError(reason.splitlines()[-1])
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
    if isinstance(value, str | bytes):
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
            copy[key] = MetricRecord(dict(record))
        else:
            copy[key] = ConfigRecord(dict(record))
    return copy
