"""What is sent between processes arrives as it was, whatever a record may hold."""

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fedge.errors import MisuseError, PeerError
from fedge.flower.codec import (
    Blobs,
    check_content,
    decode_content,
    encode_content,
    from_text,
    to_text,
)
from fedge.flower.records import array_of, read_array

MAX_BITS = 4096
# A high surrogate before a low one would be one character in any text format.
TEXT = st.text(st.characters(exclude_characters="\ud800") | st.just("\udfff"))
INTEGERS = st.integers() | st.integers(-(10**300), 10**300)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
METRICS = st.one_of(INTEGERS, FLOATS, st.lists(INTEGERS), st.lists(FLOATS))
SCALARS = (INTEGERS, FLOATS, TEXT, st.binary(), st.booleans())
SETTINGS = st.one_of(*SCALARS, *(st.lists(kind) for kind in SCALARS))
ARRAYS = npst.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    npst.array_shapes(min_dims=0, min_side=0, max_side=3),
).map(array_of)
RAW_ARRAYS = st.builds(
    Array, TEXT, st.lists(st.integers(0, 9)).map(tuple), TEXT, st.binary()
)
RECORDS = st.one_of(
    st.dictionaries(TEXT, ARRAYS | RAW_ARRAYS, max_size=3).map(ArrayRecord),
    st.dictionaries(TEXT, METRICS, max_size=4).map(MetricRecord),
    st.dictionaries(TEXT, SETTINGS, max_size=4).map(ConfigRecord),
)
CONTENTS = st.dictionaries(TEXT, RECORDS, max_size=4).map(RecordDict)


def there_and_back(content: RecordDict) -> RecordDict:
    blobs = Blobs()
    text = to_text(encode_content(content, blobs))
    return decode_content(from_text(text), [bytes(blob) for blob in blobs.items])


def plain(content: RecordDict) -> list[Any]:
    """Return everything in it, in order, with types; NaN equals NaN."""
    return [
        (key, type(record), [(name, _shown(value)) for name, value in record.items()])
        for key, record in content.items()
    ]


def _shown(value: object) -> object:
    if isinstance(value, Array):
        return value.dtype, tuple(value.shape), value.stype, value.data
    return type(value), repr(value)


@settings(deadline=None)
@given(CONTENTS)
@example(RecordDict({"c": ConfigRecord({"a": [], "b": [b""], "c": b"", "d": ""})}))
@example(RecordDict({"m": MetricRecord({"x": math.nan, "y": -math.inf, "z": -0.0})}))
@example(RecordDict({"c": ConfigRecord({"lone \ud800": "\udfff \ud800"})}))
@example(RecordDict({"m": MetricRecord({"huge": 10**4299, "list": [-(2**64)]})}))
def test_a_content_comes_back_as_it_was(content: RecordDict) -> None:
    assert plain(there_and_back(content)) == plain(content)


@pytest.mark.parametrize("kind", [MetricRecord, ConfigRecord])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("listed", [True, False])
def test_an_integer_that_is_too_long_is_refused_before_it_is_written(
    kind: type[MetricRecord] | type[ConfigRecord], sign: int, *, listed: bool
) -> None:
    def content(number: int) -> RecordDict:
        record = kind()
        record["x"] = [1, number] if listed else number
        return RecordDict({"record": record})

    largest = sign * (2**MAX_BITS - 1)
    check_content(content(largest))
    assert there_and_back(content(largest)) == content(largest)
    with pytest.raises(PeerError, match="more than 4096 bits"):
        check_content(content(largest + sign))


def test_the_records_keep_their_order() -> None:
    content = RecordDict({"z": MetricRecord(), "a": ArrayRecord(), "m": ConfigRecord()})
    assert list(there_and_back(content)) == ["z", "a", "m"]


def test_bytes_that_are_shared_are_kept_once() -> None:
    model = array_of(np.arange(1000.0))
    record = {"first": model, "again": model}
    content = RecordDict({"a": ArrayRecord(record), "b": ArrayRecord(record)})
    blobs = Blobs()
    encode_content(content, blobs)
    encode_content(RecordDict({"c": ConfigRecord({"data": model.data})}), blobs)
    assert [len(blob) for blob in blobs.items] == [len(model.data)]
    assert blobs.items[0] is model.data


def test_equal_bytes_of_different_objects_do_not_get_mixed_up() -> None:
    blobs = Blobs()
    numbers = [blobs.add(bytes([1, 2, place % 2])) for place in range(100)]
    assert [blobs.items[number][2] for number in numbers] == [0, 1] * 50


def test_arrays_can_be_read_after_the_trip() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    content = RecordDict({"a": ArrayRecord({"w": array_of(values)})})
    found = read_array(there_and_back(content).array_records["a"]["w"])
    np.testing.assert_array_equal(found, values)


def test_what_is_no_record_is_refused() -> None:
    bad = {"x": 1}
    with pytest.raises(MisuseError, match="a int is no record"):
        encode_content(bad, Blobs())  # type: ignore[arg-type]  # the mistake
