"""Weights in int8, activations quantized as they come; what is shared stays float32."""

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from fedge.arrays import Float32
from fedge.compress.dynamic import quantize_dynamic_int8, suits_dynamic
from fedge.export.onnx import export_onnx
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.preprocess import Normalization

AS_IT_IS = Normalization((0.0,), (1.0,))


class Repeated(nn.Module):
    """One layer, applied several times, after one of its own."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(16, 32), nn.Linear(32, 32)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 (n, time, 32)."""
        x = self.first(x)
        for _ in range(self.times):
            x = torch.relu(self.again(x))
        return x


def inputs() -> Float32:
    return np.random.default_rng(0).normal(size=(8, 5, 16)).astype(np.float32)


@pytest.mark.parametrize("times", [1, 3])
def test_a_layer_that_is_used_again_keeps_its_weights(times: int) -> None:
    torch.manual_seed(0)
    model = export_onnx(Repeated(times), inputs())
    small = quantize_dynamic_int8(model)
    assert suits_dynamic(model)
    assert small == quantize_dynamic_int8(model)
    kinds = [node.op_type for node in onnx.load_model_from_string(small).graph.node]
    assert kinds.count("MatMulInteger") == (2 if times == 1 else 1)
    assert kinds.count("MatMul") == (0 if times == 1 else times)
    dense, light = (
        OnnxPredictor(m, AS_IT_IS).predict(inputs()) for m in (model, small)
    )
    assert np.abs(dense - light).max() < 0.03 * np.abs(dense).max()


def test_a_network_of_convolutions_is_not_served(conv_model: bytes) -> None:
    assert not suits_dynamic(conv_model)
