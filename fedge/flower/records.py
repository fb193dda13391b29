"""Flower's records and our arrays: every array is checked before it is believed.

Flower's own `Array.numpy()` does not compare the declared shape with the payload and
lets a 64-byte header claim gigabytes. Here the header is read with a cap, compared with
the declaration and with the payload's length, and the array is a view of the bytes.
"""

import contextlib
import math
import re
from collections.abc import Mapping
from io import BytesIO
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
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0

from fedge.arrays import AnyArray, Float32, check_finite
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


class LocalArray(Array):
    """A Flower Array that becomes bytes only when somebody asks for them.

    Between parts of one process, such as a client's handler and the sum of its worker,
    nobody does, and a large model is not copied.

    Guarantee: in everything else the same as `Array(values)`.
    """

    def __init__(self, values: AnyArray) -> None:
        view = values.view()
        view.flags.writeable = False
        self.__dict__.update(
            dtype=str(view.dtype), shape=tuple(view.shape), stype=_NUMPY, _values=view
        )

    @property
    def values(self) -> AnyArray | None:
        """The array, read-only; None once its bytes were replaced."""
        found: AnyArray | None = self.__dict__["_values"]
        return found

    @property
    def num_bytes(self) -> int:
        """Number of bytes of `data`."""
        values = self.values
        if values is None or "_data" in self.__dict__:
            return len(self.data)
        return len(_header_of(values)) + values.nbytes

    @property
    def data(self) -> bytes:
        """The array in numpy's format."""
        if "_data" not in self.__dict__:
            values = self.__dict__["_values"]
            order = "F" if values.flags.fnc else "C"
            payload = values.reshape(-1, order=order).view(np.uint8).data
            self.__dict__["_data"] = b"".join([_header_of(values), payload])
        found: bytes = self.__dict__["_data"]
        return found

    @data.setter
    def data(self, data: bytes) -> None:
        self.__dict__.update(_data=data, _values=None)

    def numpy(self) -> AnyArray:
        """Return the array as a new one; Flower's way there is three copies."""
        values = self.values
        return super().numpy() if values is None else values.copy(order="K")

    def deflate(self) -> bytes:
        """Return what Flower sends: the form, with its class's name, of an Array."""
        return Array(self.dtype, self.shape, self.stype, self.data).deflate()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        mine = (self.dtype, self.shape, self.stype, self.data)
        return mine == (other.dtype, other.shape, other.stype, other.data)

    __hash__ = None  # type: ignore[assignment]  # as Array


def _header_of(values: AnyArray) -> bytes:
    """Return what stands before the values in numpy's format."""
    header = BytesIO()
    write_array_header_1_0(header, header_data_from_array_1_0(values))
    return header.getvalue()


def received_array(
    dtype: str, shape: tuple[int, ...], stype: str, data: bytes | memoryview
) -> Array:
    """Return the same as `Array(dtype, shape, stype, data)`, and no copy of the data.

    Where they are an array in numpy's format, as they nearly always are, it is found
    in them without a detour.
    """
    with contextlib.suppress(PeerError):
        if stype == _NUMPY:
            array = _array_in(memoryview(data))
            if (array.dtype, array.shape) == (dtype, shape):
                if isinstance(data, bytes):
                    array.__dict__["_data"] = data
                return array
    return Array(dtype, shape, stype, bytes(data))


def _array_in(buffer: memoryview) -> LocalArray:
    """Return the Array whose values lie in this memory, in numpy's format.

    Raises:
        PeerError: the bytes are not a number array in numpy's format.
    """
    dtype, is_fortran, shape, start = _read_header(bytes(buffer[:_MAX_HEADER_BYTES]))
    return LocalArray(_values(buffer[start:], dtype, shape, is_fortran=is_fortran))


def payload_key(array: Array) -> tuple[int, int]:
    """Return what tells an array's values from those of others that are in memory."""
    if isinstance(array, LocalArray) and array.values is not None:
        return array.values.__array_interface__["data"][0], array.values.nbytes
    return id(array.data), len(array.data)


def array_of(array: AnyArray) -> Array:
    """Return a Flower Array with the values of `array`, which must not change."""
    # Not `ascontiguousarray`: it gives a number without axes an axis.
    return LocalArray(np.asarray(array, order="C"))


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record of these very arrays; `ArrayRecord(arrays)` would copy them."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def read_array(array: Array) -> AnyArray:
    """Return the values of a Flower Array as a read-only view of its bytes.

    Guarantee: the result has the declared dtype and shape, and nothing larger than the
    message itself was allocated.

    Raises:
        PeerError: not a number array in numpy's format, or the header, the declaration
            and the payload do not agree.
    """
    if isinstance(array, LocalArray) and array.values is not None:
        return array.values
    if array.stype != _NUMPY:
        raise PeerError(f"array: serialization {array.stype[:40]!r}, need {_NUMPY!r}")
    dtype, is_fortran, shape, start = _read_header(array.data)
    if str(dtype) != array.dtype:
        raise PeerError(f"array: dtype {dtype}, declared {array.dtype[:40]}")
    if shape != tuple(array.shape):
        declared = tuple(array.shape)[: _MAX_DIMENSIONS + 1]
        raise PeerError(f"array: shape {shape}, declared {declared}")
    payload = memoryview(array.data)[start:]
    return _values(payload, dtype, shape, is_fortran=is_fortran)


def _values(
    payload: memoryview,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    *,
    is_fortran: bool,
) -> AnyArray:
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
    try:
        check_finite(vector, f"array {name!r}")
    except ValueError as exc:
        raise PeerError(str(exc)) from exc
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
            total += sum(_array_bytes(array) for array in record.values())
        else:
            total += sum(len(k) + _value_bytes(value) for k, value in record.items())
    return total


def _array_bytes(array: Array) -> int:
    return array.num_bytes if isinstance(array, LocalArray) else len(array.data)


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

    The arrays' bytes are shared: Flower never writes into them.
    """
    copy = RecordDict()
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            copy[key] = record_of({name: _same(a) for name, a in record.items()})
        elif isinstance(record, MetricRecord):
            copy[key] = MetricRecord({k: _own(v) for k, v in record.items()})
        else:
            copy[key] = ConfigRecord({k: _own(v) for k, v in record.items()})
    return copy


def _same(array: Array) -> Array:
    """Return another Array with the same values, or bytes, which are shared."""
    if isinstance(array, LocalArray) and array.values is not None:
        same = LocalArray(array.values)
        if "_data" in array.__dict__:
            same.__dict__["_data"] = array.data
        return same
    return Array(array.dtype, array.shape, array.stype, array.data)


def _own(value: T) -> T:
    return cast(T, value.copy()) if isinstance(value, list) else value
