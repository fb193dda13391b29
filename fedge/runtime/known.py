"""What is known of a value before anything is computed: how many elements it has."""

import math
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
    """

    is_constant: bool
    elements: int | None = None
    shape: tuple[int, ...] | None = None
    size: Size | None = None


LEFT_OUT = Known(is_constant=True, elements=1, shape=(1,), size=Size(1, 1, 0))


def integers(node: Node, name: str) -> tuple[int, ...]:
    """Return an operator's setting as whole numbers; none if it has no such one."""
    attribute = node.attributes.get(name)
    return () if attribute is None else attribute.ints


def constant(node: Node) -> Known:
    """Return what a Constant holds: a tensor, or numbers."""
    for attribute in node.attributes.values():
        if attribute.tensor is not None:
            return of_tensor(attribute.tensor)
        if attribute.ints:
            return Known(True, len(attribute.ints), None, size_from(attribute.ints))
        if attribute.floats:
            return Known(True, len(attribute.floats) // 4)
    raise DataError("model file: a Constant without numbers")


def of_tensor(tensor: Tensor) -> Known:
    """Return what is known of a tensor that has the size it declares."""
    shape = tuple(max(side, 1) for side in tensor.dims)
    return Known(True, min(math.prod(shape), HUGE), shape, size_of(tensor))
