import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import fedge
from fedge.arrays import AnyArray
from fedge.errors import CompressionError
from fedge.export.onnx import OnnxTemplate, export_onnx
from fedge.export.parity import check_parity

ROOT = Path(fedge.__file__).parents[1]
TABLE = np.zeros((4, 6), np.float32)
IMAGES = np.zeros((1, 1, 8, 8), np.float32)
TOKENS = np.zeros((2, 12), np.int64)


@pytest.fixture(scope="module")
def linear_model(linear: nn.Module) -> bytes:
    return export_onnx(linear, TABLE)


@pytest.fixture(scope="module")
def depthwise_model(depthwise: nn.Module) -> bytes:
    return export_onnx(depthwise, IMAGES)


@pytest.fixture(scope="module")
def recurrent_model(recurrent: nn.Module) -> bytes:
    return export_onnx(recurrent, TOKENS)


def run(model: bytes, inputs: AnyArray) -> AnyArray:
    output: AnyArray = ort.InferenceSession(model).run(["output"], {"input": inputs})[0]
    return output


def text_of(model: bytes) -> bytes:
    """Return the file without its weights, whose bytes may be any."""
    parsed = onnx.load_model_from_string(model)
    for weight in parsed.graph.initializer:
        weight.ClearField("raw_data")
    result: bytes = parsed.SerializeToString()
    return result


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_size_runs(
    linear_model: bytes, depthwise_model: bytes, recurrent_model: bytes, batch: int
) -> None:
    assert run(linear_model, np.zeros((batch, 6), np.float32)).shape == (batch, 1)
    images = np.zeros((batch, 1, 8, 8), np.float32)
    assert run(depthwise_model, images).shape == (batch, 4)
    tokens = np.zeros((batch, 12), np.int64)
    assert run(recurrent_model, tokens).shape == (batch, 12, 20)


def test_the_initializers_hold_the_weights_given(
    linear: nn.Module, linear_model: bytes
) -> None:
    graph = onnx.load_model_from_string(linear_model).graph
    stored = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    for name, value in linear.state_dict().items():
        np.testing.assert_array_equal(stored[name], value.numpy())


def test_batch_normalization_is_folded_away(depthwise_model: bytes) -> None:
    nodes = onnx.load_model_from_string(depthwise_model).graph.node
    assert "BatchNormalization" not in {node.op_type for node in nodes}


@pytest.mark.parametrize("fixture", ["linear", "depthwise", "recurrent"])
def test_the_file_names_no_path_and_no_source_line(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    text = text_of(request.getfixturevalue(f"{fixture}_model"))
    for forbidden in (b"/", b".py", b"Traceback", str(ROOT).encode()):
        assert forbidden not in text


def test_the_weights_are_inside_the_file(recurrent_model: bytes) -> None:
    graph = onnx.load_model_from_string(recurrent_model).graph
    assert not any(weight.external_data for weight in graph.initializer)


def test_the_same_weights_give_the_same_bytes(
    depthwise: nn.Module, depthwise_model: bytes
) -> None:
    assert export_onnx(depthwise, IMAGES) == depthwise_model


@pytest.mark.integration
def test_another_process_with_another_hash_seed_gives_the_same_bytes_quietly(
    linear_model: bytes,
) -> None:
    code = (
        "import hashlib, numpy, torch; from torch import nn;"
        "from fedge.export.onnx import export_onnx; torch.manual_seed(1);"
        "net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1));"
        "model = export_onnx(net, numpy.zeros((4, 6), numpy.float32));"
        "print(hashlib.sha256(model).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == hashlib.sha256(linear_model).hexdigest() + "\n"
    assert done.stderr == ""


@pytest.mark.parametrize("training", [True, False])
def test_the_module_is_left_as_it_was(linear: nn.Sequential, training: bool) -> None:
    net = nn.Sequential(nn.Dropout(0.5), *linear).train(training)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    export_onnx(net, TABLE)

    assert all(part.training is training for part in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_recurrent_module_still_trains_after_its_export(
    recurrent: nn.Module, recurrent_model: bytes
) -> None:
    assert recurrent_model
    recurrent.train()
    recurrent(torch.from_numpy(TOKENS)).sum().backward()
    assert all(p.grad is not None for p in recurrent.parameters())


def test_dropout_is_not_exported(linear: nn.Sequential) -> None:
    net = nn.Sequential(*linear, nn.Dropout(0.5)).train()
    graph = onnx.load_model_from_string(export_onnx(net, TABLE)).graph
    assert {node.op_type for node in graph.node} == {"Gemm", "Relu"}


@pytest.mark.parametrize(
    "example",
    [np.zeros((2, 6)), np.zeros((2, 6), np.int32), np.zeros((0, 6), np.float32)],
    ids=["float64", "int32", "empty"],
)
def test_examples_of_another_kind_are_refused(
    linear: nn.Module, example: AnyArray
) -> None:
    with pytest.raises(ValueError, match="example"):
        export_onnx(linear, example)


def test_a_module_that_onnx_cannot_express_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values if values.sum() > 0 else -values

    with pytest.raises(CompressionError, match="Branching cannot be exported"):
        export_onnx(Branching(), TABLE)


@pytest.mark.parametrize(
    ("fixture", "example"),
    [("linear", TABLE), ("depthwise", IMAGES), ("recurrent", TOKENS)],
)
def test_a_filled_template_is_the_file_that_a_new_export_gives(
    fixture: str, example: AnyArray, request: pytest.FixtureRequest
) -> None:
    module = copy.deepcopy(request.getfixturevalue(fixture))
    template = OnnxTemplate(module, example)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.mul_(1.25).add_(0.125)

    filled = template.fill(module)

    assert filled == export_onnx(module, example)
    check_parity(module, filled, example)


def test_a_template_refuses_another_architecture(linear: nn.Module) -> None:
    wider = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 1))
    with pytest.raises(ValueError, match="architecture"):
        OnnxTemplate(linear, TABLE).fill(wider)


def test_the_memory_layout_of_training_adds_no_operators(depthwise: nn.Module) -> None:
    twin = copy.deepcopy(depthwise).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert export_onnx(twin, IMAGES) == export_onnx(depthwise, IMAGES)
