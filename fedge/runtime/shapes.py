"""Shapes of results whose number of elements is known: bounds of every side.

Open sides of the model's input count as 1, as in `counts`. Only what exporters put
between an input and the shapes that they compute from it; for the rest none is known.
"""

import math
from collections.abc import Sequence

from fedge.errors import DataError
from fedge.runtime.known import Known, integers
from fedge.runtime.onnx_file import Node
from fedge.runtime.sizes import Size

Shape = tuple[int, ...]

_LOSING = (
    "Compress", "DepthToSpace", "Flatten", "Reduce", "Reshape", "SpaceToDepth",
    "Squeeze",
)  # fmt: skip
_MATRIX = 2
_MAX_RANK = 16
_SLICE_INPUTS = (3, 4)  # data, starts, ends, axes; with steps it may go backwards


def shape_after(node: Node, inputs: Sequence[Known]) -> Shape | None:
    """Return bounds of the sides of a result no larger than its first input.

    Args:
        node: one of `counts.KEEPING`, or a normalization.
        inputs: what is known of its inputs, at least one.
    """
    op, shape = node.op_type, inputs[0].shape
    if shape is None or op.startswith(_LOSING):
        return None
    if op == "Transpose":
        return _transposed(node, shape)
    if op == "Unsqueeze":
        return _unsqueezed(node, shape, inputs)
    if op == "Split" and len(inputs) == 1:
        return _split(node, shape)
    if op == "Slice" and len(shape) == 1 and len(inputs) in _SLICE_INPUTS:
        return _sliced(shape, inputs[1].size, inputs[2].size)
    return shape


def gathered(node: Node, inputs: Sequence[Known]) -> Shape | None:
    """Return bounds of the sides of what a Gather takes."""
    if len(inputs) != 2 or inputs[0].shape is None or inputs[1].shape is None:
        return None
    shape, places = inputs[0].shape, inputs[1].shape
    axis = gather_axis(node, shape)
    found = (*shape[:axis], *places, *shape[axis + 1 :])
    return found if len(found) <= _MAX_RANK else None


def gather_axis(node: Node, shape: Shape) -> int:
    """Return the axis of a Gather, >= 0; DataError if the data has no such one."""
    axis = next(iter(integers(node, "axis")), 0)
    if not -len(shape) <= axis < len(shape):
        raise DataError(f"model file: Gather along axis {axis} of {len(shape)}")
    return axis % len(shape)


def concatenated(node: Node, inputs: Sequence[Known]) -> Shape | None:
    """Return bounds of the sides of inputs one after the other."""
    shapes = [value.shape for value in inputs if value.shape is not None]
    axis = next(iter(integers(node, "axis")), 0)
    ranks = {len(shape) for shape in shapes}
    if len(shapes) < len(inputs) or len(ranks) != 1:
        return None
    (rank,) = ranks
    if not -rank <= axis < rank:
        return None
    sides = [max(sides) for sides in zip(*shapes, strict=True)]
    sides[axis] = sum(shape[axis] for shape in shapes)
    return tuple(sides)


def matrix_product(inputs: Sequence[Known]) -> Shape | None:
    """Return bounds of the sides of inputs @ matrix; None if they are not known."""
    if len(inputs) != 2 or inputs[0].shape is None or inputs[1].shape is None:
        return None
    left, right = inputs[0].shape, inputs[1].shape
    if len(left) < _MATRIX or len(right) != _MATRIX:
        return None
    return (*left[:-1], right[1])


def _transposed(node: Node, shape: Shape) -> Shape | None:
    order = integers(node, "perm") or tuple(reversed(range(len(shape))))
    if sorted(order) != list(range(len(shape))):
        return None
    return tuple(shape[axis] for axis in order)


def _unsqueezed(node: Node, shape: Shape, inputs: Sequence[Known]) -> Shape | None:
    size = inputs[1].size if len(inputs) > 1 else None
    axes = integers(node, "axes") or (size.numbers if size else None)
    if not axes:
        return None
    rank = len(shape) + len(axes)
    if rank > _MAX_RANK:
        raise DataError(f"model file: Unsqueeze to {rank} axes, at most {_MAX_RANK}")
    places = {axis % rank for axis in axes if -rank <= axis < rank}
    if len(places) != len(axes):
        return None
    sides = iter(shape)
    return tuple(1 if place in places else next(sides) for place in range(rank))


def _sliced(shape: Shape, starts: Size | None, ends: Size | None) -> Shape:
    """Return the length of a part of a list: less, if it says how much."""
    start, end = (size.numbers if size else None for size in (starts, ends))
    if not start or not end or len(start) != 1 or len(end) != 1:
        return shape
    if (start[0] < 0) != (end[0] < 0):
        return shape
    # Both count from the same side, so it does not matter how long the list is.
    return (min(shape[0], max(end[0] - start[0], 1)),)


def _split(node: Node, shape: Shape) -> Shape:
    """Return the sides of equal parts; the last one may be smaller."""
    axis = next(iter(integers(node, "axis")), 0)
    if integers(node, "split") or not -len(shape) <= axis < len(shape):
        return shape
    sides = list(shape)
    sides[axis] = math.ceil(sides[axis] / max(len(node.outputs), 1))
    return tuple(sides)
