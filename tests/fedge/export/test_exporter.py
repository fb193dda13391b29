"""The interface to all backends, tried on those that need nothing else."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedge.arrays import AnyArray, Float32
from fedge.backends import BACKENDS, export_model, exporter_of
from fedge.errors import CompressionError, ConfigError
from fedge.export.exporter import Exporter, Precision, check_anonymous, export_checked
from fedge.export.onnx import export_onnx
from fedge.export.parity import Limits, as_they_are
from fedge.runtime.predictor import OnnxPredictor, Predictor
from fedge.runtime.preprocess import Normalization

IMAGES = np.random.default_rng(1).normal(size=(70, 1, 8, 8)).astype(np.float32)
TOKENS = np.random.default_rng(2).integers(0, 20, (70, 12))
MODULES_BY_BACKEND = {
    "litert": ("litert_torch", "ai_edge_quantizer"),
    "executorch": ("executorch.exir", "torchao"),
    "openvino": ("openvino",),
}


class OtherNetwork:
    """Exports a network, but not the one it was given."""

    name, suffix, precisions = "other", ".onnx", tuple(Precision)

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def export(
        self, module: nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        return export_onnx(self._module, inputs)

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        return OnnxPredictor(model, normalization)


class Garbling(OtherNetwork):
    """Exports what no runtime takes."""

    def export(
        self, module: nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        return super().export(module, inputs, precision)[:-20]


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_is_found_by_its_name(name: str) -> None:
    exporter: Exporter = exporter_of(name)
    assert exporter.name == name
    assert Precision.float32 in exporter.precisions
    assert Precision.int8 in exporter.precisions
    assert exporter.suffix.startswith(".")


def test_a_backend_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="'tvm' is not one of onnx, litert"):
        exporter_of("tvm")


@pytest.mark.parametrize("name", MODULES_BY_BACKEND)
def test_a_backend_that_is_not_installed_names_the_extra(
    name: str, depthwise: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in MODULES_BY_BACKEND[name]:
        monkeypatch.setitem(sys.modules, module, None)
    exporter = exporter_of(name)  # found, as its package is not asked for yet
    with pytest.raises(ConfigError, match=rf"pip install 'fedge\[{name}\]'"):
        export_checked(exporter, depthwise, IMAGES)


@pytest.mark.parametrize(
    ("name", "precision", "kind"),
    [
        ("onnx", Precision.float32, "depthwise"),
        ("onnx", Precision.int8, "depthwise"),
        ("onnx", Precision.int8, "recurrent"),
        ("tensorrt", Precision.int8, "depthwise"),
    ],
)
def test_an_exported_file_computes_what_the_network_computes(
    name: str, precision: Precision, kind: str, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(kind)
    inputs = IMAGES if kind == "depthwise" else TOKENS
    exporter = exporter_of(name)
    any_decision = Limits(max_error=0.25, min_agreement=0.0)  # it is not trained
    limits = None if precision is Precision.float32 else any_decision

    exported = export_checked(
        exporter, network, inputs, precision=precision, limits=limits
    )

    predictor = exporter.open(exported.model, as_they_are(inputs))
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(inputs[:64])).numpy()
    error = np.abs(predictor.predict(inputs[:64]) - expected).max()
    assert exported.parity.max_abs_error == pytest.approx(error, rel=1e-5)


def test_a_precision_that_a_backend_lacks_is_refused(depthwise: nn.Module) -> None:
    with pytest.raises(ConfigError, match="onnx has no int4_dynamic; choose one of"):
        export_model(depthwise, IMAGES, to="onnx", precision=Precision.int4_dynamic)


@pytest.mark.parametrize(
    "inputs",
    [
        IMAGES[:0],
        IMAGES.astype(np.float64),
        np.full_like(IMAGES, np.nan),
        np.zeros(3, np.float32),
    ],
    ids=["empty", "float64", "nan", "no batch"],
)
def test_inputs_of_another_kind_are_refused(
    depthwise: nn.Module, inputs: AnyArray
) -> None:
    with pytest.raises(ValueError, match="inputs"):
        export_model(depthwise, inputs, to="onnx")


def test_a_file_of_another_network_is_refused(depthwise: nn.Module) -> None:
    torch.manual_seed(9)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(CompressionError, match="other float32: parity"):
        export_checked(OtherNetwork(other), depthwise, IMAGES)


def test_a_file_that_no_runtime_takes_is_refused(depthwise: nn.Module) -> None:
    with pytest.raises(CompressionError, match="does not take the exported file"):
        export_checked(Garbling(depthwise), depthwise, IMAGES)


def test_a_file_with_other_decisions_is_refused_within_the_error() -> None:
    one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        one.weight.copy_(torch.tensor([[1.0, 0.0], [0.9, 0.0]]))
        other.weight.copy_(torch.tensor([[0.9, 0.0], [1.0, 0.0]]))
    inputs = np.ones((8, 2), np.float32)
    with pytest.raises(CompressionError, match=r"agree on 0\.0% of the decisions"):
        export_checked(OtherNetwork(other), one, inputs, precision=Precision.int8)


def test_equal_outputs_are_no_disagreement() -> None:
    """With a tie, rounding decides: neither choice is wrong."""
    one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        one.weight.fill_(1.0)
        other.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 1.00001]]))
    exported = export_checked(OtherNetwork(other), one, np.ones((8, 2), np.float32))
    assert exported.parity.top1_agreement == 1.0


def marks() -> Sequence[str]:
    return [
        f"{Path.home()}/models/net.py",
        f"{Path.cwd()}/x",
        f"{sys.prefix}/lib/x.so",
        f"{tempfile.gettempdir()}/x.onnx",
        "lib/site-packages/torch/nn.py",
        'File "train.py", line 3',
        "Traceback (most recent call last):",
    ]


@given(st.binary(), st.sampled_from(range(7)), st.binary())
def test_a_file_that_tells_of_this_machine_is_refused(
    before: bytes, which: int, after: bytes
) -> None:
    mark = marks()[which].encode()
    with pytest.raises(CompressionError, match="tells of this machine"):
        check_anonymous(before + mark + after)


def test_weights_do_not_tell_of_this_machine() -> None:
    weights: Float32 = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    check_anonymous(weights.tobytes())
