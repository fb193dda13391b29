"""Weights stored in a smaller form, which constant operators restore at load time.

The runtime computes what depends on constants alone once, when it loads the file: any
layer can be stored like this, and a prediction takes as long as in float32. (The
runtime's own DequantizeLinear is not computed at load time, and would cost time in each
prediction.) Not in here: the forms themselves (`codebook`, `int4`, `recurrent`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fedge.arrays import AnyArray, Float32
from fedge.compress.grid import is_large


@dataclass(frozen=True, slots=True)
class Stored:
    """A weight's other form.

    Attributes:
        arrays: new initializers, by what is appended to the weight's name.
        nodes: operators on them, in order; the last one's output is the weight.
    """

    arrays: Mapping[str, AnyArray]
    nodes: Sequence[onnx.NodeProto]


def is_large_matrix(array: onnx.TensorProto) -> bool:
    """Say whether an initializer is a float32 weight that is worth storing smaller.

    Not if a value is not finite (-inf in attention masks).
    """
    if not is_matrix(array) or not is_large(tuple(array.dims)):
        return False
    return bool(np.isfinite(numpy_helper.to_array(array)).all())


def is_matrix(array: onnx.TensorProto) -> bool:
    """Say whether an initializer is a float32 array of two or more axes."""
    return bool(array.data_type == onnx.TensorProto.FLOAT and len(array.dims) > 1)


def store(
    model: bytes,
    chosen: Callable[[onnx.TensorProto], bool],
    form: Callable[[str, Float32], Stored],
) -> bytes:
    """Return the model with the chosen initializers in another form.

    Guarantee: deterministic; all other bytes of the graph are unchanged.

    Args:
        model: float32 ONNX file, weights inside.
        chosen: whether an initializer is stored in the new form.
        form: from a weight's name and values to its new form.
    """
    parsed = onnx.load_model_from_string(model)
    graph = parsed.graph
    nodes: list[onnx.NodeProto] = []
    for weight in [array for array in graph.initializer if chosen(array)]:
        stored = form(weight.name, numpy_helper.to_array(weight))
        graph.initializer.remove(weight)
        for suffix, values in stored.arrays.items():
            name = f"{weight.name}{suffix}"
            graph.initializer.append(numpy_helper.from_array(values, name))
        nodes += stored.nodes
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])  # in the order of computation
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


def scaled(name: str, suffix: str, codes: AnyArray, scale: Float32) -> Stored:
    """Return the form codes * scale.

    Args:
        name: of the weight.
        suffix: what the codes are called, "_int8".
        codes: int8, of the weight's shape.
        scale: float32, broadcast over the codes.
    """
    cast = helper.make_node(
        "Cast", [f"{name}{suffix}"], [f"{name}_cast"], to=onnx.TensorProto.FLOAT
    )
    times = helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name])
    return Stored({suffix: codes, "_scale": scale}, (cast, times))
