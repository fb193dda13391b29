import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedge.arrays import AnyArray
from fedge.errors import CompressionError
from fedge.export.onnx import export_onnx
from fedge.export.parity import check_parity


@pytest.fixture(scope="module")
def inputs() -> AnyArray:
    return np.random.default_rng(5).normal(size=(32, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def model(depthwise: nn.Module, inputs: AnyArray) -> bytes:
    return export_onnx(depthwise, inputs)


def test_an_exported_network_agrees_with_its_module(
    depthwise: nn.Module, model: bytes, inputs: AnyArray
) -> None:
    parity = check_parity(depthwise, model, inputs)
    assert parity.max_abs_error < 1e-5  # a few rounding errors of float32
    assert parity.top1_agreement == 1.0


def test_a_recurrent_network_on_tokens_agrees_with_its_module(
    recurrent: nn.Module,
) -> None:
    tokens = np.random.default_rng(6).integers(0, 20, (8, 12))
    parity = check_parity(recurrent, export_onnx(recurrent, tokens), tokens)
    assert parity.max_abs_error < 1e-5


def test_a_file_made_from_other_weights_is_refused(
    depthwise: nn.Module, model: bytes, inputs: AnyArray
) -> None:
    other = copy.deepcopy(depthwise)
    with torch.no_grad():
        next(iter(other.parameters())).mul_(1.5)
    with pytest.raises(CompressionError, match=r"differ by .*made from these weights"):
        check_parity(other, model, inputs)


def test_a_file_with_another_number_of_outputs_is_refused(
    depthwise: nn.Module, model: bytes, inputs: AnyArray
) -> None:
    longer = nn.Sequential(depthwise, nn.Linear(4, 7))
    with pytest.raises(CompressionError, match="shape"):
        check_parity(longer, model, inputs)


def test_outputs_that_are_not_finite_are_refused(
    depthwise: nn.Module, model: bytes, inputs: AnyArray
) -> None:
    with pytest.raises(CompressionError, match="not finite"):
        check_parity(depthwise, model, np.full_like(inputs, np.nan))


def test_the_tolerance_grows_with_large_outputs() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    model = export_onnx(net, np.zeros((1, 1), np.float32))
    with torch.no_grad():
        net.weight.fill_(1.00005)  # half the relative tolerance

    parity = check_parity(net, model, np.array([[1000.0]], np.float32))

    assert parity.max_abs_error == pytest.approx(0.05, rel=1e-2)


@pytest.mark.parametrize("training", [True, False])
def test_the_module_keeps_its_mode(
    depthwise: nn.Module, model: bytes, inputs: AnyArray, training: bool
) -> None:
    depthwise.train(training)
    check_parity(depthwise, model, inputs)
    assert depthwise.training is training
