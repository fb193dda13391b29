"""int8 as a storage format for the weights of GRU, LSTM and RNN layers.

The runtime has no static int8 kernel for these layers, so their arithmetic stays in
float32; but nothing forces their weights to travel that way. Each row (one gate of one
unit) is stored as int8 and one scale; two constant operators, which the runtime
computes once when it loads the file, restore float32. So the weights shrink fourfold,
and a prediction takes as long as before. The runtime's own DequantizeLinear is not
computed at load time, and would cost time in each prediction.

Not in here: layers with integer kernels (`quantize`).
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fedge.arrays import Float32

RECURRENT = ("GRU", "LSTM", "RNN")


def has_recurrent(graph: onnx.GraphProto) -> bool:
    """Return whether the graph has a recurrent layer at its top level."""
    return any(node.op_type in RECURRENT for node in graph.node)


def store_recurrent_int8(model: bytes) -> bytes:
    """Return the model with the weights of its recurrent layers stored as int8.

    Guarantee: a restored weight differs by at most half a step, which is 1/254 of the
    largest weight in its row (a row below 1e-36 becomes zero); zeros stay zeros; biases
    and other layers are untouched.

    Args:
        model: an ONNX file, weights inside.
    """
    parsed = onnx.load_model_from_string(model)
    graph = parsed.graph
    names = _weight_names(graph)
    weights = [w for w in graph.initializer if w.name in names and _is_matrix(w)]
    nodes = [node for weight in weights for node in _store(graph, weight)]
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])  # in the order of computation
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


def _weight_names(graph: onnx.GraphProto) -> set[str]:
    """Return every value that input or recurrence weights are made from.

    The exporter puts the gates into another order with operators on constants.
    """
    producers = {name: node for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in RECURRENT]
    left = [name for node in layers for name in node.input[1:3]]
    found: set[str] = set()
    while left:
        name = left.pop()
        if name not in found and name in producers:
            left.extend(producers[name].input)
        found.add(name)
    return found


def _is_matrix(array: onnx.TensorProto) -> bool:
    return array.data_type == onnx.TensorProto.FLOAT and len(array.dims) > 1


def _store(graph: onnx.GraphProto, weight: onnx.TensorProto) -> list[onnx.NodeProto]:
    """Replace one initializer; return the operators that restore it by its old name."""
    name = weight.name
    stored, scale = _quantize_rows(numpy_helper.to_array(weight))
    graph.initializer.remove(weight)
    graph.initializer.append(numpy_helper.from_array(stored, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    cast = helper.make_node(
        "Cast", [f"{name}_int8"], [f"{name}_cast"], to=onnx.TensorProto.FLOAT
    )
    return [cast, helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name])]


def _quantize_rows(
    values: Float32,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int8]], Float32]:
    """Return int8 values in [-127, 127] and float32 steps, shape (..., 1)."""
    scale = np.abs(values).max(axis=-1, keepdims=True) / np.float32(127)
    # subnormal steps are inexact, and may be zero: such a row becomes all zeros
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
    return np.rint(values / scale).astype(np.int8), scale.astype(np.float32)
