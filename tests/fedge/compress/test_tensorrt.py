"""The TensorRT profile, as far as it can be checked without the hardware."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from torch import nn

from fedge.arrays import AnyArray, Float32, Int64
from fedge.compress.quantize import quantize_for_tensorrt, quantize_int8
from fedge.compress.symmetric import check_symmetric
from fedge.errors import CompressionError
from fedge.export.onnx import export_onnx
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.preprocess import Normalization

PLAIN = Normalization((0.0,), (1.0,))
NUM_TRAIN = 1400


@pytest.fixture(scope="module")
def digits() -> tuple[Float32, Int64]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32), labels


@pytest.fixture(scope="module")
def trained(digits: tuple[Float32, Int64]) -> bytes:
    """A convolutional network after four epochs, as float32 ONNX."""
    inputs, targets = (torch.from_numpy(values) for values in digits)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    order = torch.Generator().manual_seed(0)
    for _ in range(4):
        for batch in torch.randperm(NUM_TRAIN, generator=order).reshape(-1, 56):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs[batch]), targets[batch])
            torch.autograd.backward(loss)
            optimizer.step()
    return export_onnx(net, digits[0])


@pytest.fixture(scope="module")
def int8(trained: bytes, digits: tuple[Float32, Int64]) -> bytes:
    return quantize_for_tensorrt(trained, digits[0][:256])


def arrays_of(model: bytes) -> dict[str, AnyArray]:
    graph = onnx.load_model_from_string(model).graph
    return {array.name: numpy_helper.to_array(array) for array in graph.initializer}


def test_every_zero_point_is_an_int8_zero(int8: bytes) -> None:
    zeros = [a for name, a in arrays_of(int8).items() if name.endswith("zero_point")]
    assert len(zeros) == 6  # of three layers' weights and inputs
    assert all(a.dtype == np.int8 and not a.any() for a in zeros)


def test_accuracy_on_digits_is_that_of_float32(
    trained: bytes, int8: bytes, digits: tuple[Float32, Int64]
) -> None:
    images, labels = digits[0][NUM_TRAIN:], digits[1][NUM_TRAIN:]
    float32 = OnnxPredictor(trained, PLAIN).predict(images)
    as_written = OnnxPredictor(int8, PLAIN, integer_kernels=False).predict(images)
    before, after = (
        (outputs.argmax(axis=1) == labels).mean() for outputs in (float32, as_written)
    )
    assert before > 0.9
    assert after >= before - 0.01
    # 8 bits each for inputs and weights of three layers: about a percent of the range
    assert np.abs(as_written - float32).max() < 0.05 * np.abs(float32).max()


def test_the_file_is_smaller_and_has_only_operators_of_the_standard(
    trained: bytes, int8: bytes
) -> None:
    parsed = onnx.load_model_from_string(int8)
    assert {node.domain for node in parsed.graph.node} == {""}
    assert len(int8) < len(trained) / 2
    onnx.checker.check_model(parsed, full_check=True)


def test_weights_are_int8_and_biases_float32(int8: bytes) -> None:
    stored = arrays_of(int8)
    weights = [a for name, a in stored.items() if name.endswith("_quantized")]
    assert [a.dtype for a in weights] == [np.int8] * 3
    assert not any(a.dtype == np.int32 for a in stored.values())


def test_no_quantizer_stands_between_a_convolution_and_its_activation(
    int8: bytes,
) -> None:
    nodes = onnx.load_model_from_string(int8).graph.node
    makers = {name: node.op_type for node in nodes for name in node.output}
    quantized = [n.input[0] for n in nodes if n.op_type == "QuantizeLinear"]
    assert len(quantized) == 3
    assert not {makers.get(name) for name in quantized} & {"Conv", "Gemm", "MatMul"}


def test_the_same_examples_give_the_same_bytes(
    trained: bytes, int8: bytes, digits: tuple[Float32, Int64]
) -> None:
    assert quantize_for_tensorrt(trained, digits[0][:256]) == int8


def test_the_profile_for_cpus_is_not_symmetric(
    trained: bytes, digits: tuple[Float32, Int64]
) -> None:
    with pytest.raises(CompressionError, match="TensorRT needs int8 and 0"):
        check_symmetric(quantize_int8(trained, digits[0][:64]))


def test_a_zero_point_that_is_not_zero_is_refused(int8: bytes) -> None:
    parsed = onnx.load_model_from_string(int8)
    [point] = [a for a in parsed.graph.initializer if a.name == "input_zero_point"]
    point.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), point.name))
    with pytest.raises(
        CompressionError, match=r"'input_zero_point' is int8, largest 3"
    ):
        check_symmetric(parsed.SerializeToString())


def test_a_zero_point_that_is_computed_is_refused(int8: bytes) -> None:
    parsed = onnx.load_model_from_string(int8)
    [point] = [a for a in parsed.graph.initializer if a.name == "input_zero_point"]
    parsed.graph.initializer.remove(point)
    with pytest.raises(CompressionError, match="is not a constant"):
        check_symmetric(parsed.SerializeToString())


def test_no_calibration_examples_are_refused(trained: bytes) -> None:
    with pytest.raises(ValueError, match="calibration"):
        quantize_for_tensorrt(trained, np.zeros((0, 1, 8, 8), np.float32))
