from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from fedge.arrays import AnyArray, Float32
from fedge.errors import ConfigError, DataError, VerificationError
from fedge.runtime.predictor import OnnxPredictor, Predictor, median_latency_ms
from fedge.runtime.preprocess import Normalization
from tests.fedge.runtime.onnx_models import (
    WEIGHTS,
    external_tensor,
    linear_model,
    model_proto,
)

PLAIN = Normalization((0.0,), (1.0,))
RAW = np.random.default_rng(0).normal(size=(6, 4))


class CountingPredictor:
    calls = 0

    def predict(self, raw: AnyArray) -> Float32:
        self.calls += 1
        return raw.astype(np.float32)


def test_outputs_are_those_of_the_normalized_inputs() -> None:
    predictor = OnnxPredictor(linear_model(), Normalization((1.0,), (2.0,)))
    outputs = predictor.predict(RAW)
    assert outputs.dtype == np.float32
    # Sums of four float32 products of numbers up to about 20.
    np.testing.assert_allclose(outputs, (RAW - 1) / 2 @ WEIGHTS, atol=1e-4)


def test_a_path_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_model())
    from_path = OnnxPredictor(tmp_path / "model.onnx", PLAIN).predict(RAW)
    from_bytes = OnnxPredictor(linear_model(), PLAIN, threads=2).predict(RAW)
    np.testing.assert_array_equal(from_path, from_bytes)


def test_replacing_the_file_does_not_touch_a_loaded_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model())
    predictor: Predictor = OnnxPredictor(path, PLAIN)
    before = predictor.predict(RAW)
    path.write_bytes(b"something else")
    np.testing.assert_array_equal(predictor.predict(RAW), before)


def test_tokens_go_in_as_integers() -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    model = model_proto([cast], input_type=TensorProto.INT64).SerializeToString()
    outputs = OnnxPredictor(model, Normalization()).predict(np.array([[3, 5]]))
    assert outputs.tolist() == [[3.0, 5.0]]


def test_external_data_is_refused_even_where_the_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    monkeypatch.chdir(tmp_path)  # the runtime looks in the current folder
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = model_proto([node], [external_tensor("w", "secret.bin")])
    with pytest.raises(VerificationError, match="external data"):
        OnnxPredictor(model.SerializeToString(), PLAIN)


@pytest.mark.parametrize("data", [b"", b"rubbish", linear_model()[:-20]])
def test_a_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="model file"):
        OnnxPredictor(data, PLAIN)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.onnx: No such file"):
        OnnxPredictor(tmp_path / "none.onnx", PLAIN)


def test_two_outputs_are_refused() -> None:
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("y", "z")]
    model = model_proto(nodes, outputs=("y", "z")).SerializeToString()
    with pytest.raises(DataError, match="1 inputs and 2 outputs"):
        OnnxPredictor(model, PLAIN)


def test_an_input_of_an_unknown_type_is_refused() -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    model = model_proto([cast], input_type=TensorProto.BOOL).SerializeToString()
    with pytest.raises(DataError, match="input of a type in"):
        OnnxPredictor(model, PLAIN)


def test_inputs_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"failed on inputs of shape \(2, 5\)"):
        OnnxPredictor(linear_model(), PLAIN).predict(np.ones((2, 5)))


def test_a_predictor_needs_a_thread() -> None:
    with pytest.raises(ConfigError, match="threads: 0"):
        OnnxPredictor(linear_model(), PLAIN, threads=0)


def test_latency_is_that_of_the_repeats_after_one_call() -> None:
    predictor = CountingPredictor()
    assert median_latency_ms(predictor, RAW, repeats=5) > 0
    assert predictor.calls == 6


def test_latency_needs_a_repeat() -> None:
    with pytest.raises(ValueError, match="repeats: 0"):
        median_latency_ms(CountingPredictor(), RAW, repeats=0)
