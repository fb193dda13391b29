import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import fedge
from fedge.arrays import AnyArray, Float32
from fedge.compress.quantize import quantize_int8
from fedge.errors import CompressionError

ROOT = Path(fedge.__file__).parents[1]


@pytest.fixture(scope="module")
def conv_int8(conv_model: bytes, images: Float32) -> bytes:
    return quantize_int8(conv_model, images)


@pytest.fixture(scope="module")
def recurrent_int8(recurrent_model: bytes, tokens: AnyArray) -> bytes:
    return quantize_int8(recurrent_model, tokens)


def run(model: bytes, inputs: AnyArray) -> AnyArray:
    output: AnyArray = ort.InferenceSession(model).run(["output"], {"input": inputs})[0]
    return output


def arrays_of(model: bytes) -> dict[str, AnyArray]:
    graph = onnx.load_model_from_string(model).graph
    return {w.name: numpy_helper.to_array(w) for w in graph.initializer}


def test_a_convolutional_network_shrinks_and_computes_nearly_the_same(
    conv_model: bytes, conv_int8: bytes, images: Float32
) -> None:
    before, after = run(conv_model, images), run(conv_int8, images)
    assert len(conv_int8) < len(conv_model) / 2.5
    # 7-bit weights and 8-bit activations: a few percent of the range
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_a_recurrent_network_shrinks_and_computes_nearly_the_same(
    recurrent_model: bytes, recurrent_int8: bytes, tokens: AnyArray
) -> None:
    before, after = run(recurrent_model, tokens), run(recurrent_int8, tokens)
    assert len(recurrent_int8) < len(recurrent_model) / 2.5
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


def test_embeddings_stay_in_float(recurrent_int8: bytes) -> None:
    assert arrays_of(recurrent_int8)["embedding.weight"].dtype == np.float32


def test_weights_have_one_scale_per_channel_and_seven_bits(conv_int8: bytes) -> None:
    stored = arrays_of(conv_int8)
    weights = [v for v in stored.values() if v.dtype == np.int8 and v.ndim == 4]
    assert [len(w) for w in weights] == [16, 32]
    assert all(np.abs(w.astype(np.int64)).max() <= 64 for w in weights)
    assert {(16,), (32,)} <= {v.shape for k, v in stored.items() if "scale" in k}


def test_pruned_weights_stay_zero(conv_model: bytes, conv_int8: bytes) -> None:
    before, after = arrays_of(conv_model), arrays_of(conv_int8)
    zero = next(v for v in before.values() if v.shape == (64, 128)) == 0
    assert zero.mean() == pytest.approx(0.5, abs=0.01)
    quantized = next(v for v in after.values() if v.shape == (64, 128))
    assert not quantized[zero].any()


@pytest.mark.parametrize("batch", [1, 7])
def test_any_batch_size_runs(conv_int8: bytes, images: Float32, batch: int) -> None:
    assert run(conv_int8, images[:batch]).shape == (batch, 10)


def test_no_path_and_no_metadata_ship(conv_int8: bytes) -> None:
    parsed = onnx.load_model_from_string(conv_int8)
    for weight in parsed.graph.initializer:
        weight.ClearField("raw_data")
    text = parsed.SerializeToString()
    assert b"/" not in text
    assert b".py" not in text
    assert not parsed.metadata_props


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["conv", "recurrent"])
def test_two_processes_with_other_hash_seeds_give_the_same_bytes_quietly(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    inputs = "images" if kind == "conv" else "tokens"
    (tmp_path / "model").write_bytes(request.getfixturevalue(f"{kind}_model"))
    np.save(tmp_path / "inputs.npy", request.getfixturevalue(inputs))
    code = (
        "import hashlib, logging, numpy, pathlib, sys;"
        "from fedge.compress.quantize import quantize_int8;"
        "folder = pathlib.Path(sys.argv[1]);"
        "inputs = numpy.load(folder / 'inputs.npy');"
        "model = quantize_int8((folder / 'model').read_bytes(), inputs);"
        "assert not logging.getLogger().handlers;"
        "print(hashlib.sha256(model).hexdigest())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT, capture_output=True, text=True, check=True,
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    expected = hashlib.sha256(request.getfixturevalue(f"{kind}_int8")).hexdigest()
    assert [o.stdout for o in outputs] == [f"{expected}\n"] * 2
    assert [o.stderr for o in outputs] == [""] * 2


def test_the_applications_log_is_left_alone(
    conv_model: bytes, images: Float32, caplog: pytest.LogCaptureFixture
) -> None:
    root = logging.getLogger()
    with caplog.at_level(logging.INFO):
        before = (list(root.handlers), list(root.filters), root.level)
        quantize_int8(conv_model, images)
        assert (list(root.handlers), list(root.filters), root.level) == before
    assert caplog.records == []


def test_temporary_files_are_gone_afterwards(
    conv_model: bytes, images: Float32, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    quantize_int8(conv_model, images)
    assert list(tmp_path.iterdir()) == []


def test_no_calibration_examples_are_refused(conv_model: bytes) -> None:
    with pytest.raises(ValueError, match="calibration"):
        quantize_int8(conv_model, np.zeros((0, 1, 8, 8), np.float32))


def test_examples_that_are_not_finite_are_refused(
    conv_model: bytes, images: Float32
) -> None:
    with pytest.raises(ValueError, match="calibration: 6400 of 6400 values"):
        quantize_int8(conv_model, np.full_like(images, np.nan))


def test_examples_that_do_not_fit_the_model_are_refused(conv_model: bytes) -> None:
    with pytest.raises(CompressionError, match=r"calibration examples .* \(3, 5\)"):
        quantize_int8(conv_model, np.zeros((3, 5), np.float32))


def test_a_model_whose_outputs_are_not_finite_is_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Log", ["input"], ["output"])],
        "main",
        [helper.make_tensor_value_info("input", 1, ["batch", 1])],
        [helper.make_tensor_value_info("output", 1, ["batch", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    with pytest.raises(CompressionError, match="not finite"):
        quantize_int8(model.SerializeToString(), np.zeros((2, 1), np.float32))
