"""Opening models in any runtime: what needs none of the extras."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from fedge.arrays import AnyArray
from fedge.errors import ConfigError, DataError, FedgeError, VerificationError
from fedge.runtime.backends import Runtime, open_predictor
from fedge.runtime.opening import first_line, one_by_one
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.preprocess import Normalization
from tests.fedge.runtime.onnx_models import external_tensor, linear_model, model_proto

PLAIN = Normalization((0.0,), (1.0,))
RAW = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
# Just enough that a runtime is asked for: the identifiers of the formats.
PROMISING = {
    Runtime.litert: b"\x1c\0\0\0TFL3" + bytes(64),
    Runtime.executorch: b"\x1c\0\0\0ET12" + bytes(64),
    Runtime.openvino: linear_model(),
}
MODULE = {
    Runtime.litert: "ai_edge_litert",
    Runtime.executorch: "executorch",
    Runtime.openvino: "openvino",
}


def test_the_default_runtime_is_opened() -> None:
    opened = open_predictor(Runtime.onnx, linear_model(), PLAIN, threads=2)
    expected = OnnxPredictor(linear_model(), PLAIN).predict(RAW)
    np.testing.assert_array_equal(opened.predict(RAW), expected)


@pytest.mark.parametrize("runtime", MODULE)
def test_a_runtime_that_is_not_installed_names_its_extra(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [n for n in sys.modules if n.partition(".")[0] == MODULE[runtime]]
    for name in (MODULE[runtime], *names):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'fedge\[{runtime}\]'"):
        open_predictor(runtime, PROMISING[runtime], PLAIN)


@pytest.mark.parametrize("runtime", Runtime)
@given(data=st.binary(max_size=200))
def test_bytes_of_strangers_are_refused_by_our_own_error(
    runtime: Runtime, data: bytes
) -> None:
    with pytest.raises(FedgeError):
        open_predictor(runtime, data, PLAIN)


@pytest.mark.parametrize("runtime", [Runtime.litert, Runtime.executorch])
def test_a_file_of_another_format_is_named_as_such(runtime: Runtime) -> None:
    with pytest.raises(DataError, match="model file: not a"):
        open_predictor(runtime, linear_model(), PLAIN)


def test_openvino_does_not_get_to_see_external_data() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = model_proto([node], [external_tensor("w", "secret.bin")])
    with pytest.raises(VerificationError, match="external data"):
        open_predictor(Runtime.openvino, model.SerializeToString(), PLAIN)


@pytest.mark.parametrize("runtime", Runtime)
def test_every_runtime_needs_a_thread_and_a_file(
    runtime: Runtime, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="threads: 0"):
        open_predictor(runtime, linear_model(), PLAIN, threads=0)
    with pytest.raises(DataError, match="none: No such file"):
        open_predictor(runtime, tmp_path / "none", PLAIN)


def test_without_integer_kernels_a_model_computes_the_same() -> None:
    plain = OnnxPredictor(linear_model(), PLAIN).predict(RAW)
    other = OnnxPredictor(linear_model(), PLAIN, integer_kernels=False).predict(RAW)
    np.testing.assert_array_equal(plain, other)


def test_one_by_one_gives_what_all_at_once_gives() -> None:
    shapes = []

    def double(row: AnyArray) -> AnyArray:
        shapes.append(row.shape)
        return row * 2

    np.testing.assert_array_equal(one_by_one(RAW, (4,), double), 2 * RAW)
    assert shapes == [(1, 4)] * 6


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 1), (0, 4)])
def test_one_by_one_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"failed on inputs .* need \(n, 4\)"):
        one_by_one(np.zeros(shape, np.float32), (4,), lambda row: row)


def test_an_error_is_told_without_the_place_in_somebodys_source() -> None:
    text = "Exception from src/core.cpp:105:\n\nUnable to read the model.\nmore\n"
    assert first_line(RuntimeError(text)) == "Unable to read the model."
    assert first_line(RuntimeError("")) == "RuntimeError"
