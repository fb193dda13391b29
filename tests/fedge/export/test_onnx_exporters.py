import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fedge.backends import exporter_of
from fedge.errors import CompressionError
from fedge.export.exporter import Precision
from fedge.export.onnx_exporters import has_attention, has_recurrent

SEQUENCE = np.random.default_rng(1).normal(size=(8, 6, 16)).astype(np.float32)


def model(op_type: str, *inputs: str) -> bytes:
    """One operator on the input "x" and the constant "w"."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    node = helper.make_node(op_type, list(inputs), ["y"])
    graph = helper.make_graph([node], "test", [value], [output], [weights])
    return bytes(helper.make_model(graph).SerializeToString())


def test_attention_is_a_product_of_two_computed_matrices() -> None:
    assert has_attention(model("MatMul", "x", "x"))
    assert has_attention(model("Attention", "x", "x", "x"))
    assert not has_attention(model("MatMul", "x", "w"))
    assert not has_attention(model("Gemm", "x", "w"))


@pytest.mark.parametrize("op_type", ["GRU", "LSTM", "RNN"])
def test_recurrent_layers_are_recognized(op_type: str) -> None:
    assert has_recurrent(model(op_type, "x", "w", "w"))
    assert not has_recurrent(model("MatMul", "x", "w"))


def test_openvino_is_given_no_int8_of_what_it_computes_wrongly() -> None:
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    exporter = exporter_of("openvino")
    with pytest.raises(CompressionError, match="int8 of a network with attention"):
        exporter.export(layer, SEQUENCE, Precision.int8)
