"""Is a quantized ONNX file symmetric, as TensorRT demands?

Source: NVIDIA, TensorRT developer guide, "Working with Quantized Types".
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from fedge.errors import CompressionError

_SCALING = ("QuantizeLinear", "DequantizeLinear")


def check_symmetric(model: bytes) -> None:
    """Raise unless every zero point of a quantized ONNX file is 0.

    TensorRT builds no engine from other ones.

    Raises:
        CompressionError: a zero point is not 0, is computed, or is not int8.
    """
    graph = onnx.load_model_from_string(model).graph
    arrays = {array.name: array for array in graph.initializer}
    for node in graph.node:
        if node.op_type in _SCALING and len(node.input) > 2:
            _check_zero(node.input[2], arrays)


def _check_zero(name: str, arrays: Mapping[str, onnx.TensorProto]) -> None:
    if name not in arrays:
        raise CompressionError(f"tensorrt: zero point {name!r} is not a constant")
    values = numpy_helper.to_array(arrays[name])
    if values.dtype != np.int8 or values.any():
        raise CompressionError(
            f"tensorrt: zero point {name!r} is {values.dtype}, largest "
            f"{np.abs(values.astype(np.int64)).max()}; TensorRT needs int8 and 0"
        )
