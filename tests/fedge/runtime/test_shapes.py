"""Bounds of sides, against what numpy makes of real arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.runtime.known import Known
from fedge.runtime.onnx_file import Attribute, Node
from fedge.runtime.shapes import matrix_product, shape_after
from fedge.runtime.sizes import size_from

SHAPES = st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple)


def known(shape: tuple[int, ...] | None) -> Known:
    return Known(False, None if shape is None else int(np.prod(shape)), shape)


def node(op_type: str, outputs: int = 1, **settings: list[int]) -> Node:
    attributes = {name: Attribute(ints=tuple(v)) for name, v in settings.items()}
    names = tuple(f"y{i}" for i in range(outputs))
    return Node(op_type, "", ("x",), names, attributes)


@given(shape=SHAPES, data=st.data())
def test_transpose(shape: tuple[int, ...], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    found = shape_after(node("Transpose", perm=order), [known(shape)])
    assert found == np.zeros(shape).transpose(order).shape
    assert shape_after(node("Transpose"), [known(shape)]) == shape[::-1]


@given(shape=SHAPES, data=st.data())
def test_unsqueeze(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(shape) + 2
    axes = data.draw(
        st.lists(st.integers(0, rank - 1), min_size=2, max_size=2, unique=True)
    )
    signed = [axis - rank if data.draw(st.booleans()) else axis for axis in axes]
    expected = np.expand_dims(np.zeros(shape), tuple(signed)).shape
    numbers = Known(True, 2, (2,), size_from(signed))
    assert shape_after(node("Unsqueeze"), [known(shape), numbers]) == expected
    assert shape_after(node("Unsqueeze", axes=signed), [known(shape)]) == expected


@given(shape=SHAPES, parts=st.integers(1, 4), data=st.data())
def test_no_part_is_larger(
    shape: tuple[int, ...], parts: int, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    found = shape_after(node("Split", parts, axis=[axis]), [known(shape)])
    assert found == np.array_split(np.zeros(shape), parts, axis=axis)[0].shape


@given(left=SHAPES, width=st.integers(0, 5))
def test_a_product_with_a_matrix(left: tuple[int, ...], width: int) -> None:
    matrix = (left[-1], width)
    found = matrix_product([known(left), known(matrix)])
    if len(left) == 1:
        assert found is None
    else:
        assert found == (np.zeros(left) @ np.zeros(matrix)).shape


@pytest.mark.parametrize(
    ("of", "inputs"),
    [
        (node("Reshape"), [known((2, 3))]),
        (node("ReduceSum"), [known((2, 3))]),
        (node("Squeeze"), [known((2, 1))]),
        (node("DepthToSpace"), [known((1, 4, 2, 2))]),
        (node("Unsqueeze"), [known((2, 3)), Known(True, 1)]),
        (node("Unsqueeze", axes=[7]), [known((2, 3))]),
        (node("Unsqueeze", axes=[0, 0]), [known((2, 3))]),
        (node("Transpose", perm=[0, 0]), [known((2, 3))]),
        (node("Relu"), [known(None)]),
    ],
)
def test_what_is_not_known_is_not_guessed(of: Node, inputs: list[Known]) -> None:
    assert shape_after(of, inputs) is None


def test_parts_of_any_size_are_at_most_the_whole() -> None:
    assert shape_after(node("Split", 2, split=[5, 1]), [known((6,))]) == (6,)
    sizes = Known(True, 2, (2,), size_from([5, 1]))
    assert shape_after(node("Split", 2), [known((6,)), sizes]) == (6,)
    assert matrix_product([known((2, 3)), known(None)]) is None
