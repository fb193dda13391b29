"""A graph that computes nothing but the ranges of a network's activations.

Devices run it on their own examples, so it must run without the `onnx` package and give
one output: for a batch, the least and the largest value of every tensor that int8
quantization needs to know about, float32, shape (1, 2k): all least ones, then all
largest ones, in the order of the tensors' names.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import MinMaxCalibrater

from fedge.compress.quantize import prepared, quantized_op_types
from fedge.export.strip import strip
from fedge.export.tidy import tidy

_OUTPUT, _SHAPE = "fedge_ranges", "fedge_one_number"


@dataclass(frozen=True, slots=True)
class Observed:
    """A network under observation.

    Attributes:
        graph: the ONNX file that computes the ranges.
        names: the tensors that it observes, sorted.
    """

    graph: bytes
    names: tuple[str, ...]


def observed(model: bytes) -> Observed | None:
    """Return the graph that computes a float32 network's ranges; None if it has none.

    Without a layer whose activations int8 quantizes (recurrent layers alone) there is
    nothing to ask for.

    Guarantee: the same model gives the same bytes; the names are those that
    quantization with ranges (`quantize_int8`) expects.

    Args:
        model: float32 ONNX file with one input.
    """
    proto, names = _observable(model)
    if not names:
        return None
    graph = proto.graph
    least = [_reduced(graph, name, "ReduceMin") for name in names]
    largest = [_reduced(graph, name, "ReduceMax") for name in names]
    graph.node.append(helper.make_node("Concat", [*least, *largest], [_OUTPUT], axis=1))
    shape = numpy_helper.from_array(np.array([1, 1], np.int64), _SHAPE)
    graph.initializer.append(shape)
    del graph.output[:]
    sides = [1, 2 * len(names)]
    graph.output.append(
        helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, sides)
    )
    return Observed(strip(proto.SerializeToString()), names)


def _observable(model: bytes) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the network as the quantizer sees it, and the tensors it asks about."""
    model = tidy(model)
    original = onnx.load_model_from_string(model)
    with tempfile.TemporaryDirectory(prefix="fedge.") as folder:
        path = Path(folder, "prepared")
        path.write_bytes(prepared(model))
        calibrater = MinMaxCalibrater(
            path, op_types_to_calibrate=quantized_op_types(original.graph)
        )
    found, _ = calibrater.select_tensors_to_calibrate(calibrater.model)
    return calibrater.model, tuple(sorted(found))


def _reduced(graph: onnx.GraphProto, name: str, op_type: str) -> str:
    """Add the operators that reduce a tensor to one number, shape (1, 1)."""
    number, result = f"{name}/{op_type}", f"{name}/{op_type}/1"
    graph.node.append(helper.make_node(op_type, [name], [number], keepdims=0))
    graph.node.append(helper.make_node("Reshape", [number, _SHAPE], [result]))
    return result
