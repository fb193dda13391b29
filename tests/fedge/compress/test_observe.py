import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from fedge.arrays import AnyArray, Float32
from fedge.compress.observe import Observed, observed
from fedge.compress.quantize import quantize_int8
from fedge.export.onnx import export_onnx
from fedge.runtime.model_check import check_model
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.preprocess import Normalization
from fedge.runtime.ranges import NO_RANGES, Ranges

AS_IT_IS = Normalization((0.0,), (1.0,))


class OnlyGru(nn.Module):
    """A recurrent layer and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(8, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last state."""
        last: Tensor = self.layer(x)[0][:, -1]
        return last


def watching(model: bytes) -> Observed:
    found = observed(model)
    assert found is not None
    return found


def ranges_of(watched: Observed, parts: list[AnyArray], how: Normalization) -> Ranges:
    """What several devices would find together, each with its part of the data."""
    predictor = OnnxPredictor(watched.graph, how)
    rows = np.concatenate([predictor.predict(part) for part in parts])
    low, high = np.split(rows, 2, axis=1)
    return Ranges(watched.names, low.min(axis=0), high.max(axis=0))


def arrays_of(model: bytes) -> dict[str, AnyArray]:
    graph = onnx.load_model_from_string(model).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def check_same(found: bytes, expected: bytes) -> None:
    """Equal but for a rounding error: two sessions add in different orders."""
    wanted = arrays_of(expected)
    assert list(arrays_of(found)) == list(wanted)
    for name, array in arrays_of(found).items():
        # A bias is a whole number of steps of its scale, so it may be off by one.
        is_code = array.dtype == np.int32
        tolerance = {"atol": 1} if is_code else {"rtol": 1e-5}
        np.testing.assert_allclose(array, wanted[name], **tolerance)


def test_ranges_of_parts_give_the_int8_model_that_all_examples_give(
    conv_model: bytes, images: Float32
) -> None:
    watched = watching(conv_model)
    ranges = ranges_of(watched, [images[:37], images[37:]], AS_IT_IS)
    found = quantize_int8(conv_model, ranges)
    check_same(found, quantize_int8(conv_model, images))


def test_a_recurrent_network_is_observed_around_its_recurrent_layer(
    recurrent_model: bytes, tokens: AnyArray
) -> None:
    watched = watching(recurrent_model)
    ranges = ranges_of(watched, [tokens[:30], tokens[30:]], Normalization())
    found = quantize_int8(recurrent_model, ranges)
    check_same(found, quantize_int8(recurrent_model, tokens))


def test_the_same_model_gives_the_same_graph(conv_model: bytes) -> None:
    assert observed(conv_model) == observed(conv_model)


def test_the_graph_is_one_that_a_device_accepts(conv_model: bytes) -> None:
    watched = watching(conv_model)
    assert len(check_model(watched.graph).outputs) == 1
    assert b"/tmp" not in watched.graph


def test_a_recurrent_layer_alone_has_no_ranges_and_becomes_int8() -> None:
    torch.manual_seed(0)
    model = export_onnx(OnlyGru(), np.zeros((2, 5, 8), np.float32))
    assert observed(model) is None
    small = quantize_int8(model, NO_RANGES)
    inputs = np.random.default_rng(0).normal(size=(4, 5, 8)).astype(np.float32)
    dense, light = (OnnxPredictor(m, AS_IT_IS).predict(inputs) for m in (model, small))
    assert np.abs(dense - light).max() < 0.05
    assert len(small) < 0.6 * len(model)
