import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import numpy_helper
from torch import nn

from fedge.arrays import AnyArray, Float32
from fedge.compress.grid import INT4_LIMIT, best_scales, to_codes
from fedge.compress.int4 import store_int4
from fedge.compress.pack import pack
from fedge.export.onnx import export_onnx


def outputs(model: bytes, inputs: AnyArray) -> Float32:
    result: Float32 = ort.InferenceSession(model).run(None, {"input": inputs})[0]
    return result


def initializers(model: bytes) -> dict[str, AnyArray]:
    graph = onnx.load_model_from_string(model).graph
    return {a.name: numpy_helper.to_array(a) for a in graph.initializer}


def test_weights_become_codes_of_four_bits(conv_model: bytes, images: Float32) -> None:
    small = store_int4(conv_model)
    codes = {n: a for n, a in initializers(small).items() if n.endswith("_int4")}
    assert len(codes) == 3  # the first convolution has only 144 values
    assert all(a.dtype == np.int8 and np.abs(a).max() <= 7 for a in codes.values())
    assert len(pack(small, level=19)) < 0.2 * len(conv_model)
    gap = np.abs(outputs(small, images) - outputs(conv_model, images)).max()
    assert 0.0 < gap < 0.2 * np.abs(outputs(conv_model, images)).max()


def test_a_recurrent_network_runs(recurrent_model: bytes, tokens: AnyArray) -> None:
    small = store_int4(recurrent_model)
    expected = outputs(recurrent_model, tokens)
    gap = np.abs(outputs(small, tokens) - expected).max()
    assert 0.0 < gap < 0.2 * np.abs(expected).max()


def test_zeros_stay_zeros_and_the_bytes_are_the_same_twice(conv_model: bytes) -> None:
    small = store_int4(conv_model)
    assert small == store_int4(conv_model)
    before, after = initializers(conv_model), initializers(small)
    for name, codes in after.items():
        if name.endswith("_int4"):
            assert not codes[before[name.removesuffix("_int4")] == 0.0].any()


class Products(nn.Module):
    """A matrix product whose weight the exporter turns round, and one it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 40, bias=False)
        self.down = nn.ConvTranspose1d(40, 12, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(self.up(inputs).mT)
        return result


def test_each_output_channel_has_a_scale_of_its_own() -> None:
    torch.manual_seed(0)
    net = Products()
    with torch.no_grad():  # channels of very different size
        net.up.weight.mul_(torch.logspace(-3, 3, 40)[:, None])
    inputs = np.random.default_rng(0).normal(size=(4, 6, 8)).astype(np.float32)
    restored = _restored(store_int4(export_onnx(net, inputs)))

    rows = net.up.weight.detach().numpy()
    scales = best_scales(rows, INT4_LIMIT)
    expected = to_codes(rows, scales, INT4_LIMIT) * scales
    assert any(
        a.shape in (expected.shape, expected.T.shape)
        and (np.array_equal(a, expected) or np.array_equal(a.T, expected))
        for a in restored
    )


def _restored(model: bytes) -> list[AnyArray]:
    arrays = initializers(model)
    return [
        codes * arrays[name.replace("_int4", "_scale")]
        for name, codes in arrays.items()
        if name.endswith("_int4")
    ]


def test_arrays_that_are_not_finite_stay_as_they_are(conv_model: bytes) -> None:
    parsed = onnx.load_model_from_string(conv_model)
    mask = max(parsed.graph.initializer, key=lambda array: len(array.raw_data))
    values = numpy_helper.to_array(mask).copy()
    values.flat[0] = -np.inf  # as in attention masks
    mask.CopyFrom(numpy_helper.from_array(values, mask.name))
    stored = initializers(store_int4(parsed.SerializeToString()))
    assert np.array_equal(stored[mask.name], values)
    assert sum(name.endswith("_int4") for name in stored) == 2


def test_biases_of_recurrent_layers_stay_float(recurrent_model: bytes) -> None:
    before, after = (
        initializers(recurrent_model),
        initializers(store_int4(recurrent_model)),
    )
    biases = [name for name, a in before.items() if a.ndim == 2 and 1 in a.shape]
    assert biases
    assert all(np.array_equal(before[name], after[name]) for name in biases)
