"""int8 weights with activations quantized while the model runs.

For layers whose activations vary too much for fixed ranges: LSTM layers and the matrix
products of transformers. Not for convolutions: the runtime's kernel for those is six to
twenty times slower than float32's. Not in here: static ranges (`quantize`).

Source: ONNX Runtime, quantize_dynamic.
"""

import tempfile
from collections import Counter
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from fedge.compress.quantize import RUNTIME_ERRORS, check_runs, prepared, zeros_for
from fedge.errors import CompressionError
from fedge.export.quiet import quiet_quantizer
from fedge.export.strip import strip

_OPERATORS = ("LSTM", "MatMul")


def _sharing(graph: onnx.GraphProto) -> list[str]:
    """Return the operators whose weights stay in float32, for others use them too."""
    shared = _shared(graph)
    return [node.name for node in graph.node if node.name and shared & {*node.input}]


def suits_dynamic(model: bytes) -> bool:
    """Say whether a float32 ONNX file has a layer with weights that this serves."""
    graph = onnx.load_model_from_string(model).graph
    weights = {array.name for array in graph.initializer} - _shared(graph)
    return any(
        node.op_type == "LSTM"
        or (node.op_type == "MatMul" and node.input[1] in weights)
        for node in graph.node
    )


def _shared(graph: onnx.GraphProto) -> set[str]:
    """Return weights of several operators: the quantizer takes them from the others."""
    weights = {array.name for array in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    return {name for name in weights if uses[name] > 1}


def quantize_dynamic_int8(model: bytes) -> bytes:
    """Return the model with the weights of LSTM layers and matrix products in int8.

    Guarantee: the same model gives the same bytes; it names no path of this machine.

    Args:
        model: float32 ONNX file.

    Raises:
        CompressionError: the result does not run.
    """
    with tempfile.TemporaryDirectory(prefix="fedge.") as folder, quiet_quantizer():
        source, result = Path(folder, "source"), Path(folder, "result")
        ready = prepared(model)
        source.write_bytes(ready)
        quantize_dynamic(
            source,
            result,
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=_sharing(onnx.load_model_from_string(ready).graph),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # as in `quantize`
        )
        quantized = strip(result.read_bytes())
    try:
        check_runs(quantized, zeros_for(model))
    except RUNTIME_ERRORS as exc:
        raise CompressionError(
            "dynamic: the runtime refuses the model; choose another "
            "compression.quantization"
        ) from exc
    return quantized
