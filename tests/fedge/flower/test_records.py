import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedge.errors import PeerError
from fedge.flower.node_list import ensure_task_identity
from fedge.flower.records import (
    array_of,
    content_of_reply,
    payload_bytes,
    private_copy,
    read_array,
    read_vector,
)

NUMBERS = st.sampled_from(
    ["<f4", "<f8", "<f2", ">f4", "<i8", "<i4", "|i1", "|u1", "<u2", "|b1"]
)


def header(descr: str = "'<f4'", order: str = "False", shape: str = "(2,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }} \n"


def npy(
    text: str, payload: bytes = b"\0" * 8, version: tuple[int, int] = (1, 0)
) -> bytes:
    width = 2 if version == (1, 0) else 4
    length = len(text.encode()).to_bytes(width, "little")
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + payload


def claim(
    data: bytes,
    dtype: str = "float32",
    shape: tuple[int, ...] = (2,),
    stype: str = "numpy.ndarray",
) -> Array:
    return Array(dtype=dtype, shape=shape, stype=stype, data=data)


@settings(deadline=None, max_examples=60)
@given(
    NUMBERS.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0)))
)
def test_an_array_comes_back_as_it_was(array: np.ndarray[Any, Any]) -> None:
    result = read_array(array_of(array))
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert result.tobytes() == array.tobytes()


def test_the_result_is_a_view_that_nobody_can_write() -> None:
    result = read_array(array_of(np.arange(3.0)))
    assert not result.flags.writeable
    assert not result.flags.owndata


def test_columns_first_is_read_as_such() -> None:
    matrix = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    stream = io.BytesIO()
    np.save(stream, matrix)
    assert b"'fortran_order': True" in stream.getvalue()
    result = read_array(claim(stream.getvalue(), shape=(2, 3)))
    np.testing.assert_array_equal(result, matrix)


def test_version_2_of_the_format_is_read() -> None:
    assert read_array(claim(npy(header(), version=(2, 0)))).shape == (2,)


def test_big_endian_numbers_keep_their_values_and_are_no_float32_vector() -> None:
    array = array_of(np.array([1.0, 2.0], ">f4"))
    np.testing.assert_array_equal(read_array(array), [1.0, 2.0])
    with pytest.raises(PeerError, match=r"array 'x': >f4 \(2,\), need float32 \(2,\)"):
        read_vector(ArrayRecord({"x": array}), "x", 2)


HOSTILE_HEADERS = {
    "version 3": npy(header(), version=(3, 0)),
    "version 9": npy(header(), version=(9, 9)),
    "no magic": b"PK\x03\x04" + npy(header())[4:],
    "nothing": b"",
    "only magic": npy(header())[:8],
    "cut in the header": npy(header())[:40],
    "header of 4 GB": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + header().encode(),
    "unclosed bracket": npy("{'descr': '<f4', "),
    "keys of two types": npy("{1: 2, 'a': 3}\n"),
    "a key that has no hash": npy("{[]: 2}\n"),
    "three thousand signs": npy("-" * 3000 + "1\n"),
    "three hundred brackets": npy("(" * 300),
    "bad indentation": npy("  x\n y"),
    "a call": npy("__import__('os').abort()\n"),
    "python 2 numbers": npy(header(shape="(2L,)")),
    "negative sizes": npy(header(shape="(-1, -2)")),
    "bools as sizes": npy(header(shape="(True,)")),
    "objects": npy(header(descr="'|O'")),
    "text": npy(header(descr="'<U2'")),
    "complex": npy(header(descr="'<c8'")),
    "fields": npy(header(descr="[('a', '<f4')]")),
    "empty description": npy(header(descr="()")),
    "no such width": npy(header(descr="'<f3'")),
    "a list of types": npy(header(descr="'f4,f4,,'")),
    "seventy axes": npy(header(shape="(" + "1, " * 70 + ")")),
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_a_hostile_header_is_refused(name: str) -> None:
    with pytest.raises(PeerError, match=r"array: "):
        read_array(claim(HOSTILE_HEADERS[name]))


BIG = 10**18 - 1
DISAGREEMENTS = {
    "another dtype": (claim(npy(header()), dtype="float64"), "dtype float32, declared"),
    "a nickname": (claim(npy(header()), dtype="f4"), "declared f4"),
    "another shape": (claim(npy(header()), shape=(1, 2)), r"declared \(1, 2\)"),
    "cut": (claim(npy(header(), b"\0" * 7)), "7 bytes do not make float32"),
    "too long": (claim(npy(header(), b"\0" * 9)), "9 bytes do not make float32"),
    "torch": (claim(npy(header()), stype="torch"), "serialization 'torch', need"),
    "overflowing, empty": (
        claim(npy(header(shape=f"(0, {BIG}, {BIG})"), b""), shape=(0, BIG, BIG)),
        "is too large",
    ),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_header_declaration_and_payload_must_agree(name: str) -> None:
    array, message = DISAGREEMENTS[name]
    with pytest.raises(PeerError, match=message):
        read_array(array)


def test_a_claim_of_gigabytes_allocates_nothing() -> None:
    size = 2**33
    array = claim(npy(header(shape=f"({size},)"), b""), shape=(size,))
    tracemalloc.start()
    try:
        with pytest.raises(PeerError, match="0 bytes do not make"):
            read_array(array)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_what_a_stranger_declares_does_not_fill_the_log() -> None:
    array = claim(npy(header()), dtype="x" * 10**6, shape=(1,) * 10**5)
    with pytest.raises(PeerError) as caught:
        read_array(array)
    assert len(str(caught.value)) < 1000


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damaged_bytes_are_read_or_refused_but_never_crash(data: st.DataObject) -> None:
    good = bytearray(array_of(np.arange(4, dtype=np.float32)).data)
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    try:
        result = read_array(claim(bytes(good[:cut]), shape=(4,)))
    except PeerError:
        return
    assert result.dtype == np.float32
    assert result.shape == (4,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_must_be_finite(bad: float) -> None:
    record = ArrayRecord({"x": array_of(np.array([0.0, bad], np.float32))})
    with pytest.raises(PeerError, match="values are not finite"):
        read_vector(record, "x", 2)


def test_a_vector_must_be_there_and_have_the_size() -> None:
    record = ArrayRecord({"x": array_of(np.zeros((2, 1), np.float32))})
    with pytest.raises(PeerError, match="array 'y' is missing"):
        read_vector(record, "y", 2)
    with pytest.raises(PeerError, match=r"need float32 \(2,\)"):
        read_vector(record, "x", 2)


def test_payload_bytes_counts_every_kind_of_entry() -> None:
    content = RecordDict(
        {
            "config": ConfigRecord({"a": "", "b": "é", "c": True, "d": b"xyz"}),
            "lists": ConfigRecord({"e": ["", "ab"], "f": [1, 2], "g": list[int]()}),
            "metrics": MetricRecord({"m": 1.5, "n": [1, 2, 3]}),
        }
    )
    config = (1 + 0) + (1 + 2) + (1 + 1) + (1 + 3)
    lists = (1 + 2) + (1 + 16) + 1
    assert payload_bytes(content) == config + lists + (1 + 8) + (1 + 24)


def test_payload_bytes_of_arrays_is_that_of_their_data() -> None:
    array = array_of(np.zeros(10))
    content = RecordDict({"a": ArrayRecord({"x": array, "y": array})})
    assert payload_bytes(content) == 2 * len(array.data)
    assert payload_bytes(RecordDict()) == 0


def test_a_private_copy_can_be_changed_freely() -> None:
    original = RecordDict(
        {
            "config": ConfigRecord({"values": [1, 2]}),
            "metrics": MetricRecord({"losses": [1.0]}),
            "arrays": ArrayRecord({"x": array_of(np.zeros(1))}),
        }
    )
    copy = private_copy(original)
    values = copy["config"]["values"]
    assert isinstance(values, list)
    values.clear()
    copy["arrays"].clear()
    del copy["metrics"]
    assert original["config"]["values"] == [1, 2]
    assert list(original["arrays"]) == ["x"]
    assert "metrics" in original


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("line\nValueError: the last", "^ValueError: the last$"),
        (" \n ", "^no reason given$"),
        ("", "^no reason given$"),
        ("x" * 10**6, "^x{500}$"),
    ],
)
def test_an_error_reply_is_raised_in_one_short_line(reason: str, expected: str) -> None:
    ensure_task_identity()
    request = Message(RecordDict(), 5, "train")
    reply = Message(Error(1, reason), reply_to=request)
    with pytest.raises(PeerError, match=expected):
        content_of_reply(reply)
