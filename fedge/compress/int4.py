"""Weights as integers of four bits and one scale for each output channel.

Stored as one byte each, of which four bits say anything; packing takes the others away.
Computes in float32. Not in here: int8, which also computes faster (`quantize`), and
freely placed values (`codebook`).
"""

from collections.abc import Mapping

import numpy as np
import onnx

from fedge.arrays import Float32
from fedge.compress.grid import INT4_LIMIT, best_scales, to_codes
from fedge.compress.stored import Stored, is_large_matrix, scaled, store

SUFFIX = "_int4"


def store_int4(model: bytes) -> bytes:
    """Return the model with its weight matrices as codes in [-7, 7] and scales.

    Guarantee: deterministic; zeros stay zeros; arrays with one axis, and small ones,
    and those that are not finite, are untouched.

    Args:
        model: float32 ONNX file, weights inside.
    """
    axes = _output_axes(onnx.load_model_from_string(model).graph)

    return store(model, is_large_matrix, lambda n, w: _form(n, w, axes.get(n)))


def _form(name: str, values: Float32, axis: int | None) -> Stored:
    """Return codes and scales; without an axis each row along the last one has its."""
    if axis is None:
        rows = values.reshape(-1, values.shape[-1])
        shape = (*values.shape[:-1], 1)
    else:
        rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        shape = tuple(n if a == axis else 1 for a, n in enumerate(values.shape))
    scale = best_scales(rows, INT4_LIMIT).reshape(shape)
    return scaled(name, SUFFIX, to_codes(values, scale, INT4_LIMIT), scale)


def _output_axes(graph: onnx.GraphProto) -> Mapping[str, int]:
    """Return the axis of output channels, where it is not given by rows."""
    ranks = {array.name: len(array.dims) for array in graph.initializer}
    axes = {}
    for node in graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        if name in ranks:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            known = {
                "Conv": 0,
                "ConvTranspose": 1,
                "Gemm": 0 if transposed else 1,
                "MatMul": ranks[name] - 1,
            }
            if node.op_type in known:
                axes[name] = known[node.op_type]
    return axes
