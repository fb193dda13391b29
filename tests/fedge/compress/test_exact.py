import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fedge.arrays import AnyArray, Float32
from fedge.compress.exact import computes_exactly
from fedge.compress.quantize import quantize_int8


@pytest.fixture(scope="module")
def int8(conv_model: bytes, images: Float32) -> bytes:
    return quantize_int8(conv_model, images)


def changed(model: bytes, position: int, node: onnx.NodeProto) -> bytes:
    """The model with one more operator."""
    proto = onnx.load_model_from_string(model)
    proto.graph.node.insert(position, node)
    return bytes(proto.SerializeToString())


def test_an_int8_network_of_convolutions_promises_its_bits(int8: bytes) -> None:
    assert computes_exactly(int8)


def test_a_float_network_promises_nothing(conv_model: bytes) -> None:
    assert not computes_exactly(conv_model)


def test_a_recurrent_network_promises_nothing(
    recurrent_model: bytes, tokens: AnyArray
) -> None:
    assert not computes_exactly(quantize_int8(recurrent_model, tokens))


@pytest.mark.parametrize("op", ["Softmax", "HardSwish", "Sigmoid", "Mul"])
def test_an_operator_in_float_ends_the_promise(int8: bytes, op: str) -> None:
    inputs = ["output"] * (2 if op == "Mul" else 1)
    count = len(onnx.load_model_from_string(int8).graph.node)
    node = helper.make_node(op, inputs, ["more"])
    assert not computes_exactly(changed(int8, count, node))


def test_a_sum_that_is_not_quantized_afterwards_ends_the_promise(int8: bytes) -> None:
    proto = onnx.load_model_from_string(int8)
    last = next(n for n in reversed(proto.graph.node) if n.op_type == "Gemm")
    kept = [n for n in proto.graph.node if last.output[0] not in n.input]
    cut = [n for n in kept if "output" not in n.output]
    last.output[0] = "output"
    del proto.graph.node[:]
    proto.graph.node.extend(cut)
    assert not computes_exactly(proto.SerializeToString())


def test_weights_of_eight_bits_end_the_promise(int8: bytes) -> None:
    proto = onnx.load_model_from_string(int8)
    weights = next(t for t in proto.graph.initializer if len(t.dims) > 1)
    codes = numpy_helper.to_array(weights).copy()
    codes.flat[0] = np.int8(127)
    weights.CopyFrom(numpy_helper.from_array(codes, weights.name))
    assert not computes_exactly(proto.SerializeToString())
