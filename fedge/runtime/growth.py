"""How large can constants become while a runtime loads a model? Bounded in advance.

A runtime computes, while it loads a model, everything that follows from constants
alone. So a file of a hundred bytes can ask for gigabytes: a shape and ConstantOfShape,
Expand or Tile; or two vectors whose product is a matrix. Here each value gets an upper
bound of its number of elements, in one pass over the operators, and each operator that
makes something as large as a number says is held to the product of all literals that
this number is computed from. Both bounds are conservative: too large, never too small.

Sizes that follow from the shape of the model's input are not bounded here beyond the
declared sides of that input: whoever runs the model decides how large inputs are.
"""

import math
from dataclasses import dataclass

from fedge.errors import DataError
from fedge.runtime.onnx_file import Node, OnnxFile, Tensor
from fedge.runtime.sizes import Size, size_after, size_from, size_of

# What may be made from nothing, of all operators together: 16 MiB of 8 bytes each.
MAX_ELEMENTS = 2**21
# Besides: so many times the elements that the file itself holds. A table's indices are
# cast and looked up, and weights reshaped, each of which makes a copy.
_COPIES = 4
_MAX_SETTING = 2**16
_AXES = 16  # numbers that a shape has, at most

# Operators whose result has as many elements as their first input, at most.
_KEEPING = frozenset((
    "Abs", "Cast", "CastLike", "Ceil", "Clip", "Compress", "Cos", "DequantizeLinear",
    "Dropout", "Erf", "Exp", "Flatten", "Floor", "HardSigmoid", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Neg",
    "Not", "QuantizeLinear", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "Sigmoid",
    "Sign", "Sin", "Slice", "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Tanh",
    "Transpose", "Trilu", "Unsqueeze",
))  # fmt: skip
_BROADCASTING = frozenset((
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where",
    "Xor",
))  # fmt: skip
_PRODUCTS = frozenset((
    "Conv", "Gather", "GatherElements", "GatherND", "Gemm", "MatMul",
))  # fmt: skip
# operator -> which inputs say how large its result is
_SIZED = {
    **{"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Range": (0, 1, 2)},
    **{"OneHot": (1,), "Pad": (1,), "Resize": (2, 3), "Upsample": (1,)},
}
_SETTINGS = (
    "dilations", "kernel_shape", "output_padding", "output_shape", "pads", "strides",
)  # fmt: skip


_ONE = Size(1, 1, 0)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a value.

    Attributes:
        elements: upper bound, if it is a constant; None if it depends on the input.
        shape: of a constant, where it is known.
        size: what it can be as a size; None if no bound is known.
    """

    elements: int | None = None
    shape: tuple[int, ...] | None = None
    size: Size | None = None


_LEFT_OUT = _Known(elements=0, shape=(0,), size=_ONE)


def check_growth(found: OnnxFile) -> None:
    """Raise DataError if loading the model could make much more than is in the file.

    Args:
        found: tensors have the sizes that they declare.
    """
    sides = [math.prod(s or 1 for s in shape) for shape in found.inputs.values()]
    pass_ = _Pass({t.name: _of_tensor(t) for t in found.tensors}, max(sides, default=1))
    if len(pass_.known) != len(found.tensors):
        raise DataError("model file: two tensors have one name")
    for name in found.inputs:
        pass_.known.setdefault(name, _Known())
    held = sum(math.prod(t.dims) for t in found.tensors)
    limit = MAX_ELEMENTS + _COPIES * held
    made = 0
    for node in found.nodes:
        made += pass_.take(node)
        if made > limit:
            raise DataError(
                f"model file: loading it could make {made} values from {held}, at most "
                f"{limit} (operator {node.op_type[:40]})"
            )


class _Pass:
    """One walk over the operators, in an order in which inputs come first."""

    def __init__(self, known: dict[str, _Known], input_elements: int) -> None:
        self.known = known
        self._input_elements = input_elements

    def take(self, node: Node) -> int:
        """Learn an operator's outputs; return the elements it makes when loading."""
        inputs = [self._value(name) for name in node.inputs]
        _check_settings(node)
        result = self._result(node, inputs, _grown(node, inputs))
        made = 0
        for name in filter(None, node.outputs):
            if name in self.known:
                raise DataError(f"model file: value {name[:40]!r} is made twice")
            self.known[name] = result
            made += result.elements or 0
        return made

    def _value(self, name: str) -> _Known:
        if not name:
            return _LEFT_OUT
        if name not in self.known:
            raise DataError(
                f"model file: value {name[:40]!r} is used before it is made"
            )
        return self.known[name]

    def _result(self, node: Node, inputs: list[_Known], grown: int) -> _Known:
        if node.op_type == "Constant":
            return _constant(node)
        if node.op_type in ("Shape", "Size") and inputs:
            source = inputs[0].elements
            bound = max(self._input_elements if source is None else source, 1)
            elements = None if source is None else _AXES
            return _Known(elements, None, Size(bound, bound, _AXES))
        size = size_after(node, [value.size for value in inputs])
        if any(value.elements is None for value in inputs):
            return _Known(None, None, size)
        count, shape = _folded(node, inputs, grown)
        return _Known(count, shape, size)


def _grown(node: Node, inputs: list[_Known]) -> int:
    """Return how many times larger than its inputs a result may be, from literals.

    Raises:
        DataError: larger than `MAX_ELEMENTS`, or not known.
    """
    grown = 1
    for place in _SIZED.get(node.op_type, ()):
        size = (inputs[place] if place < len(inputs) else _LEFT_OUT).size
        if size is None or (node.op_type == "Range" and not size.is_whole):
            raise DataError(
                f"model file: {node.op_type} makes a result whose size follows from "
                "data and not from shapes, so no bound is known"
            )
        grown *= size.product
        # A side and its pads are at most (1 + pad) times as long.
        grown *= 2**size.entries if node.op_type == "Pad" else 1
    grown *= 2 if node.op_type == "Range" else 1  # from -start to limit
    if grown > MAX_ELEMENTS:
        raise DataError(
            f"model file: {node.op_type} can ask for {min(grown, 2**63)} values, at "
            f"most {MAX_ELEMENTS}"
        )
    return grown


def _check_settings(node: Node) -> None:
    for name in _SETTINGS:
        worst = max((abs(value) for value in _ints(node, name)), default=0)
        if worst > _MAX_SETTING:
            raise DataError(
                f"model file: {node.op_type[:40]}.{name}: {worst} is more than "
                f"{_MAX_SETTING}"
            )


def _folded(
    node: Node, inputs: list[_Known], grown: int
) -> tuple[int, tuple[int, ...] | None]:
    """Return the elements and shape of a result that follows from constants.

    Raises:
        DataError: this operator is not one whose result can be bounded.
    """
    op = node.op_type
    counts = [value.elements or 0 for value in inputs]
    if not inputs:
        raise DataError(f"model file: {op[:40]} makes values from nothing")
    if op in _KEEPING:
        keeps = op not in ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
        same = keeps and not op.startswith(("Reduce", "Slice", "Split", "Compress"))
        return counts[0], inputs[0].shape if same else None
    if op in _BROADCASTING:
        return _broadcast(inputs)
    if op == "Gather" and inputs[0].shape is not None:
        return _gathered(node, inputs), None
    if op == "Concat":
        return sum(counts), None
    if op in _PRODUCTS:
        return math.prod(max(count, 1) for count in counts), None
    if op in _SIZED:
        first = 1 if op in ("ConstantOfShape", "Range") else max(counts[0], 1)
        return first * grown, None
    raise DataError(
        f"model file: {op[:40]} of constants alone; compute it before exporting"
    )


def _broadcast(inputs: list[_Known]) -> tuple[int, tuple[int, ...] | None]:
    shapes = [value.shape for value in inputs]
    known = [shape for shape in shapes if shape is not None]
    if len(known) == len(shapes):
        width = max(len(shape) for shape in known)
        padded = [(1,) * (width - len(shape)) + shape for shape in known]
        shape = tuple(max(sides) for sides in zip(*padded, strict=True))
        return math.prod(shape), shape
    return math.prod(max(value.elements or 1, 1) for value in inputs), None


def _gathered(node: Node, inputs: list[_Known]) -> int:
    shape = inputs[0].shape or ()
    axis = next(iter(_ints(node, "axis")), 0)
    if not -len(shape) <= axis < len(shape):
        raise DataError(f"model file: Gather along axis {axis} of {len(shape)}")
    row = math.prod(shape) // max(shape[axis], 1)
    indices = inputs[1].elements or 0 if len(inputs) > 1 else 0
    return row * indices


def _ints(node: Node, name: str) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return () if attribute is None else attribute.ints


def _constant(node: Node) -> _Known:
    """Return what a Constant holds: a tensor, or numbers."""
    for attribute in node.attributes.values():
        if attribute.tensor is not None:
            return _of_tensor(attribute.tensor)
        if attribute.ints:
            return _Known(len(attribute.ints), None, size_from(attribute.ints))
        if attribute.floats:
            return _Known(len(attribute.floats) // 4)
    raise DataError("model file: a Constant without numbers")


def _of_tensor(tensor: Tensor) -> _Known:
    return _Known(math.prod(tensor.dims), tensor.dims, size_of(tensor))
