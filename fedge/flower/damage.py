"""What a broken wire or a diverged device does to a reply's content.

Each function returns a damaged copy, or the content itself if there is nothing in it
that could be damaged in this way. `choice` is 64 uniform bits; the same ones damage the
same place.
"""

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedge.errors import PeerError
from fedge.flower.records import array_of, private_copy, read_array

Place = tuple[str, str]  # name of a record and of an entry in it


def truncated(content: RecordDict, choice: int) -> RecordDict:
    """Cut off the second half of an array's bytes or of a byte string."""
    return _change_bytes(content, choice, lambda data, _: data[: len(data) // 2])


def bit_flipped(content: RecordDict, choice: int) -> RecordDict:
    """Turn one bit of an array's bytes, header included, or of a byte string."""
    return _change_bytes(content, choice, _flip)


def with_nan(content: RecordDict, choice: int) -> RecordDict:
    """Replace one value of a float32 array, or one metric, by NaN."""
    places = _number_places(content)
    if not places:
        return content
    damaged = private_copy(content)
    key, name = places[choice % len(places)]
    record = damaged[key]
    if isinstance(record, ArrayRecord):
        record[name] = _nan_in(record[name], choice // len(places))
    elif isinstance(record, MetricRecord):
        record[name] = float("nan")
    return damaged


def _change_bytes(
    content: RecordDict, choice: int, change: Callable[[bytes, int], bytes]
) -> RecordDict:
    places = _byte_places(content)
    if not places:
        return content
    damaged = private_copy(content)
    key, name = places[choice % len(places)]
    record, rest = damaged[key], choice // len(places)
    if isinstance(record, ArrayRecord):
        old = record[name]
        record[name] = Array(old.dtype, old.shape, old.stype, change(old.data, rest))
    elif isinstance(record, ConfigRecord):
        data = record[name]
        assert isinstance(data, bytes)
        record[name] = change(data, rest)
    return damaged


def _flip(data: bytes, choice: int) -> bytes:
    position = choice % (8 * len(data))
    flipped = bytearray(data)
    flipped[position // 8] ^= 1 << position % 8
    return bytes(flipped)


# Flower's `array_records` and its like tie a content into a cycle that keeps a whole
# model until the next garbage collection, so records are told apart here.


def _byte_places(content: RecordDict) -> list[Place]:
    """Return where there are bytes, at least one."""
    return [
        (key, name)
        for key, record in content.items()
        for name, value in record.items()
        if (isinstance(value, Array) and value.data)
        or (isinstance(value, bytes) and value)
    ]


def _number_places(content: RecordDict) -> list[Place]:
    """Return where there are float32 arrays and metrics that are one number."""
    return [
        (key, name)
        for key, record in content.items()
        for name, value in record.items()
        if (isinstance(value, Array) and _is_float32(value))
        or (isinstance(record, MetricRecord) and isinstance(value, int | float))
    ]


def _is_float32(array: Array) -> bool:
    try:
        values = read_array(array)
    except PeerError:
        return False
    return values.dtype == np.float32 and values.size > 0


def _nan_in(array: Array, choice: int) -> Array:
    values = read_array(array).copy()
    values.flat[choice % values.size] = np.nan
    return array_of(values)
