"""How many elements can an operator's result have? Upper bounds, operator by operator.

Every open side of the model's input counts as 1: what grows with it is for whoever runs
the model to decide. A runtime knows the same, as far as shapes are fixed in the file,
and computes what follows from fixed shapes alone while it loads the model.
"""

import math

from fedge.errors import DataError
from fedge.runtime.known import Known, integers
from fedge.runtime.onnx_file import Node
from fedge.runtime.shapes import (
    concatenated,
    gather_axis,
    gathered,
    matrix_product,
    shape_after,
)
from fedge.runtime.sizes import HUGE

# Operators whose result has as many elements as their first input, at most.
KEEPING = frozenset((
    "Abs", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Compress", "Cos", "CumSum",
    "DepthToSpace", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Flatten",
    "Floor", "Gelu", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity",
    "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax",
    "LpNormalization", "Mish", "Neg", "Not", "QuantizeLinear", "RMSNormalization",
    "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND", "Selu",
    "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split",
    "Sqrt", "Squeeze", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Transpose", "Trilu",
    "Unsqueeze",
))  # fmt: skip
_BROADCASTING = frozenset((
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where",
    "Xor",
))  # fmt: skip
_PRODUCTS = frozenset((
    "Einsum", "Gather", "GatherElements", "GatherND", "Gemm", "MatMul",
))  # fmt: skip
_POOLING = frozenset(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"))
_NORMALIZING = frozenset(("BatchNormalization", "InstanceNormalization"))
# operator -> which inputs say how large its result is
SIZED = {
    **{"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Range": (0, 1, 2)},
    **{"OneHot": (1,), "Pad": (1,), "Resize": (2, 3), "Upsample": (1,)},
}


def count_after(
    node: Node, inputs: list[Known], grown: int
) -> tuple[int | None, tuple[int, ...] | None]:
    """Return the bound of an operator's elements, and its shape where it is known.

    Args:
        node: an operator with inputs.
        inputs: what is known of them.
        grown: for those in `SIZED`, how many times larger than the first input the
            result is, at most.
    """
    op = node.op_type
    counts = [max(v.elements, 1) for v in inputs if v.elements is not None]
    if len(counts) < len(inputs) or not inputs:
        return None, None
    if op == "Reshape":
        return _reshaped(inputs), None
    if op in KEEPING or op in _NORMALIZING:
        shape = shape_after(node, inputs)
        most = HUGE if shape is None else math.prod(shape)
        return min(inputs[0].elements or 1, most), shape
    if op in _BROADCASTING:
        return _broadcast(inputs)
    if op == "MatMul" and (product := matrix_product(inputs)):
        return min(math.prod(product), HUGE), product
    shape = concatenated(node, inputs) if op == "Concat" else None
    shape = gathered(node, inputs) if op == "Gather" else shape
    return _bounded(_loose_count(node, inputs, counts, grown)), shape


def _loose_count(
    node: Node, inputs: list[Known], counts: list[int], grown: int
) -> int | None:
    op = node.op_type
    if op == "Concat":
        return sum(counts)
    if op == "Gather" and inputs[0].shape is not None:
        return _gathered(node, inputs)
    if op in _PRODUCTS:
        return math.prod(counts)
    if op == "Conv" or op in _POOLING:
        return math.prod(counts[: 2 if op == "Conv" else 1]) * _padding(node)
    if op in SIZED:
        return grown * (1 if op in ("ConstantOfShape", "Range") else counts[0])
    return None


def _reshaped(inputs: list[Known]) -> int:
    """Return the bound of what has a new shape: a runtime believes what that says."""
    target = inputs[1] if len(inputs) > 1 else None
    if target is not None and target.is_constant and target.size is None:
        raise DataError("model file: Reshape to a shape for which no bound is known")
    if target is None or target.size is None:
        return inputs[0].elements or 1
    # 0 stands for a side of the input.
    side = max(inputs[0].shape or (inputs[0].elements or 1,), default=1)
    asked: int = target.size.product * side**target.size.zeros
    return min(max(inputs[0].elements or 1, asked), HUGE)


def work_of(node: Node, inputs: list[Known]) -> int:
    """Return how many numbers go into each element of a result."""
    if node.op_type in _POOLING:
        return math.prod(max(side, 1) for side in integers(node, "kernel_shape"))
    if node.op_type == "MatMul" and matrix_product(inputs):
        return (inputs[0].shape or (1,))[-1]
    return 1


def _bounded(count: int | None) -> int | None:
    return None if count is None else min(count, HUGE)


def _padding(node: Node) -> int:
    """Return how many times larger pads make a result: a side of 1 most of all."""
    return math.prod(1 + abs(pad) for pad in integers(node, "pads"))


def _broadcast(inputs: list[Known]) -> tuple[int, tuple[int, ...] | None]:
    shapes = [value.shape for value in inputs]
    known = [shape for shape in shapes if shape is not None]
    if len(known) == len(shapes):
        width = max(len(shape) for shape in known)
        padded = [(1,) * (width - len(shape)) + shape for shape in known]
        shape = tuple(max(sides) for sides in zip(*padded, strict=True))
        return min(math.prod(shape), HUGE), shape
    count = math.prod(max(value.elements or 1, 1) for value in inputs)
    return min(count, HUGE), None


def _gathered(node: Node, inputs: list[Known]) -> int:
    shape = inputs[0].shape or ()
    row = math.prod(shape) // max(shape[gather_axis(node, shape)], 1)
    indices = inputs[1].elements or 0 if len(inputs) > 1 else 0
    return min(row * indices, HUGE)
