import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedge.arrays import AnyArray
from fedge.errors import ConfigError
from fedge.runtime.packed import DTYPES, MAX_PACKED_BYTES, PackedArray

ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda name: arrays(
        np.dtype(name), array_shapes(min_dims=0, max_side=4, min_side=0)
    )
)


@settings(deadline=None, max_examples=50)
@given(array=ARRAYS)
def test_an_array_comes_back_bit_for_bit(array: AnyArray) -> None:
    back = PackedArray.pack(array).unpack()
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


def test_a_view_and_a_foreign_byte_order_come_back_by_value() -> None:
    big = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert PackedArray.pack(big).unpack().tolist() == big.tolist()


def test_known_bytes() -> None:
    packed = PackedArray.pack(np.array([1, 258], np.uint16))
    assert packed == PackedArray("uint16", (2,), "AQACAQ==")


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "what"),
    [
        ("object", (1,), "AAAA", "dtype 'object' not in"),
        ("float32", (1,), "AAAA", "characters do not fit"),
        ("uint8", (3,), "A*AA", "not base64"),
        ("uint8", (2,), "AAAA", "wrong number of bytes"),
        ("uint8", (-1,), "", "is not allowed"),
        ("uint8", (1,) * 9, "AA==", "is not allowed"),
        ("float32", (2**40, 2**40), "", "bytes, at most"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    dtype: str, shape: tuple[int, ...], data: str, what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        PackedArray(dtype, shape, data)  # type: ignore[arg-type]  # that is the point


def test_other_types_are_not_packed() -> None:
    with pytest.raises(ConfigError, match="dtype 'object'"):
        PackedArray.pack(np.array([None]))


def test_a_large_array_is_not_packed() -> None:
    with pytest.raises(ConfigError, match="use fewer examples"):
        PackedArray.pack(np.zeros(MAX_PACKED_BYTES + 1, np.uint8))
