"""Tiny ONNX files, made on the spot."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fedge.arrays import AnyArray

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)


def model_proto(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    input_type: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", input_type, None)],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in outputs],
        list(initializers),
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def linear_proto(weights: AnyArray = WEIGHTS) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model_proto([node], [numpy_helper.from_array(weights, "w")])


def linear_model() -> bytes:
    """Float32 (n, 4) times `WEIGHTS`."""
    return bytes(linear_proto().SerializeToString())


def external_tensor(name: str, location: str) -> onnx.TensorProto:
    """Float32 (4, 3) whose values are in another file."""
    tensor = numpy_helper.from_array(WEIGHTS, name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor
