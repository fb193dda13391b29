"""How many multiplications a prediction takes, counted from the file that is shipped.

Counting the exported graph counts what runs: folded layers are gone, and recurrent
layers, which counters that watch PyTorch miss, are there.
"""

import math
from collections.abc import Callable, Mapping

import onnx
from onnx import numpy_helper

from fedge.errors import CompressionError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def count_macs(model: bytes) -> int:
    """Return the multiply-accumulate operations of a prediction for one example.

    Counted are convolutions, matrix products and recurrent layers, in whatever number
    format; what they leave out (activations, pooling, normalization) is little.

    Args:
        model: an ONNX file's bytes, batch axis first in its input.

    Raises:
        CompressionError: the shape of something that counts cannot be inferred.
    """
    parsed = onnx.load_model_from_string(model)
    _set_batch_to_one(parsed.graph)
    try:
        graph = onnx.shape_inference.infer_shapes(parsed, data_prop=True).graph
    except onnx.shape_inference.InferenceError as exc:
        raise CompressionError("multiplications: shapes cannot be inferred") from exc
    shapes = _shapes(graph)
    total = 0
    for node in graph.node:
        if node.op_type in _COUNTERS:
            try:
                total += _COUNTERS[node.op_type](node, shapes)
            except KeyError as exc:
                raise CompressionError(
                    f"multiplications of {node.op_type} cannot be counted: the shape "
                    f"of {exc} is not known before the model runs"
                ) from exc
    return total


def _set_batch_to_one(graph: onnx.GraphProto) -> None:
    weights = {array.name for array in graph.initializer}
    for value in graph.input:
        if value.name in weights:  # as files of old versions have it
            continue
        sides = value.type.tensor_type.shape.dim
        if sides:
            sides[0].dim_value = 1
    for value in graph.output:  # what was declared must not contradict it
        value.type.tensor_type.ClearField("shape")


def _shapes(graph: onnx.GraphProto) -> Shapes:
    """Return the shapes of all values that have one."""
    shapes = {array.name: tuple(array.dims) for array in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            shapes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t).shape
    for value in (*graph.input, *graph.value_info, *graph.output):
        sides = value.type.tensor_type.shape.dim
        has_shape = value.type.tensor_type.HasField("shape")
        if has_shape and all(side.HasField("dim_value") for side in sides):
            shapes[value.name] = tuple(side.dim_value for side in sides)
    return shapes


def _of_convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each output position of each output channel reads its filter once."""
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])


def _of_transposed(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Each input position of each input channel writes its filter once."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _of_product(node: onnx.NodeProto, shapes: Shapes) -> int:
    is_transposed = any(a.name == "transA" and a.i for a in node.attribute)
    inner = shapes[node.input[0]][0 if is_transposed else -1]
    return math.prod(shapes[node.output[0]]) * inner


def _of_recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    """In each step all gates read the input and the state."""
    steps, batch, _ = shapes[node.input[0]]
    return (
        steps
        * batch
        * (math.prod(shapes[node.input[1]]) + math.prod(shapes[node.input[2]]))
    )


_COUNTERS: Mapping[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _of_convolution,
    "ConvInteger": _of_convolution,
    "ConvTranspose": _of_transposed,
    "Gemm": _of_product,
    "MatMul": _of_product,
    "MatMulInteger": _of_product,
    "DynamicQuantizeMatMul": _of_product,
    "GRU": _of_recurrent,
    "LSTM": _of_recurrent,
    "RNN": _of_recurrent,
    "DynamicQuantizeLSTM": _of_recurrent,
}
