import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from fedge.arrays import AnyArray
from fedge.compress.codebook import store_codebook
from fedge.compress.quantize import quantize_int8
from fedge.errors import CompressionError
from fedge.export.macs import count_macs
from fedge.export.onnx import export_onnx

IMAGES = np.zeros((4, 3, 8, 8), np.float32)


def _of(*layers: nn.Module, example: AnyArray = IMAGES) -> int:
    return count_macs(export_onnx(nn.Sequential(*layers), example))


def test_a_convolution_counts_its_filter_at_each_position() -> None:
    assert _of(nn.Conv2d(3, 5, 3, padding=1)) == 8 * 8 * 5 * 3 * 9
    assert _of(nn.Conv2d(3, 5, 3, stride=2, padding=1)) == 4 * 4 * 5 * 3 * 9


def test_a_depthwise_convolution_counts_one_input_channel_each() -> None:
    assert _of(nn.Conv2d(3, 6, 3, padding=1, groups=3)) == 8 * 8 * 6 * 9


def test_a_transposed_convolution_counts_what_each_input_writes() -> None:
    assert _of(nn.ConvTranspose2d(3, 5, 2, stride=2)) == 8 * 8 * 3 * 5 * 4


def test_a_linear_layer_counts_its_weights() -> None:
    assert _of(nn.Flatten(), nn.Linear(192, 7)) == 192 * 7


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
def test_a_recurrent_layer_counts_all_gates_in_each_step(
    kind: type[nn.GRU] | type[nn.LSTM], gates: int
) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(5, 6, batch_first=True)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(inputs)[0]
            return result

    model = export_onnx(Net(), np.zeros((2, 9, 5), np.float32))
    assert count_macs(model) == 9 * gates * 6 * (5 + 6)


def test_the_number_format_does_not_change_the_count() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
    )
    model = export_onnx(net, IMAGES)
    inputs = np.random.default_rng(0).normal(size=IMAGES.shape).astype(np.float32)
    counts = {
        count_macs(model),
        count_macs(quantize_int8(model, inputs)),
        count_macs(store_codebook(model)),
    }
    assert counts == {36 * 16 * 27 + 16 * 36 * 10}


def test_a_shape_that_depends_on_values_is_refused() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["input", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "flat"], ["output"]),
        ],
        "main",
        [
            helper.make_tensor_value_info("input", 1, ["batch", 3]),
            helper.make_tensor_value_info("shape", 7, [2]),
        ],
        [helper.make_tensor_value_info("output", 1, ["a", "b"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(CompressionError, match="MatMul cannot be counted"):
        count_macs(model.SerializeToString())


def test_a_transposed_product_counts_its_inner_side() -> None:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["w", "input"], ["output"], transA=1, transB=1)],
        "main",
        [helper.make_tensor_value_info("input", 1, ["batch", 3])],
        [helper.make_tensor_value_info("output", 1, ["a", "b"])],
        [helper.make_tensor("w", onnx.TensorProto.FLOAT, (3, 5), [0.0] * 15)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert count_macs(model.SerializeToString()) == 3 * 5
