"""What is known of a value before anything is computed: how many elements it has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedge.errors import DataError
from fedge.runtime.onnx_file import Node, Tensor
from fedge.runtime.sizes import HUGE, Size, size_from, size_of


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a value.

    Attributes:
        is_constant: whether it may follow from the file alone.
        elements: upper bound, at most `HUGE`; None if none is known.
        shape: bounds of its sides, where they are known. An open side and an empty
            one count as 1.
        size: what it can be as a size; None if no bound is known.
        is_fixed: whether it follows from the file alone, and not from shapes.
        is_float: whether it is known to have a floating-point type.
    """

    is_constant: bool
    elements: int | None = None
    shape: tuple[int, ...] | None = None
    size: Size | None = None
    is_fixed: bool = False
    is_float: bool = False


_FLOATS = (1, 10, 11, 16)  # ONNX's numbers of the types
_SAME_TYPE = frozenset((
    "Abs", "Add", "Concat", "Div", "Gather", "Identity", "Mul", "Neg", "Pow",
    "Reshape", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
))  # fmt: skip
LEFT_OUT = Known(True, 1, (1,), Size(1, 1, 0), is_fixed=True)


def integers(node: Node, name: str) -> tuple[int, ...]:
    """Return an operator's setting as whole numbers; none if it has no such one."""
    attribute = node.attributes.get(name)
    return () if attribute is None else attribute.ints


def is_float_after(node: Node, inputs: Sequence[Known]) -> bool:
    """Say whether an operator's result is known to have a floating-point type."""
    if node.op_type == "Cast":
        return any(kind in _FLOATS for kind in integers(node, "to"))
    return node.op_type in _SAME_TYPE and inputs[0].is_float


def constant(node: Node) -> Known:
    """Return what a Constant holds: a tensor, or numbers."""
    if len(node.attributes) != 1:
        raise DataError("model file: a Constant with several values, or none")
    for attribute in node.attributes.values():
        if attribute.tensor is not None:
            return of_tensor(attribute.tensor)
        if attribute.ints:
            size, count = size_from(attribute.ints), len(attribute.ints)
            return Known(True, count, None, size, is_fixed=True)
        if attribute.floats:
            return Known(True, len(attribute.floats) // 4, is_fixed=True)
    raise DataError("model file: a Constant without numbers")


def of_tensor(tensor: Tensor) -> Known:
    """Return what is known of a tensor that has the size it declares."""
    shape = tuple(max(side, 1) for side in tensor.dims)
    count = min(math.prod(shape), HUGE)
    is_float = tensor.dtype in _FLOATS
    return Known(True, count, shape, size_of(tensor), is_fixed=True, is_float=is_float)
