"""int8 as a storage format for the weights of GRU, LSTM and RNN layers.

The runtime has no static int8 kernel for these layers, so their arithmetic stays in
float32; but nothing forces their weights to travel that way. Each row (one gate of one
unit) is stored as int8 and one scale, from which constant operators restore float32
(`stored`): the weights shrink fourfold, and a prediction takes as long as before.

Not in here: layers with integer kernels (`quantize`).
"""

import numpy as np
import onnx

from fedge.arrays import Float32, Int8
from fedge.compress.stored import Stored, is_matrix, scaled, store

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
    names = _weight_names(onnx.load_model_from_string(model).graph)
    return store(model, lambda w: w.name in names and is_matrix(w), _form)


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


def _form(name: str, values: Float32) -> Stored:
    return scaled(name, "_int8", *_quantize_rows(values))


def _quantize_rows(values: Float32) -> tuple[Int8, Float32]:
    """Return int8 values in [-127, 127] and float32 steps, shape (..., 1)."""
    scale = np.abs(values).max(axis=-1, keepdims=True) / np.float32(127)
    # subnormal steps are inexact, and may be zero: such a row becomes all zeros
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1))
    return np.rint(values / scale).astype(np.int8), scale.astype(np.float32)
