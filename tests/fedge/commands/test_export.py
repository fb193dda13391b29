"""`fedge export`, on the folder of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fedge.__main__ import main
from fedge.commands.run_folder import read_run
from fedge.compress.structured import narrowed
from fedge.config import Experiment
from fedge.config.experiment import to_json
from fedge.models.vector import params_of, spec_of
from fedge.runtime.predictor import OnnxPredictor
from server.journal import Journal
from server.setup import Setup, prepare
from server.summary import save_model


@pytest.fixture(scope="module")
def setup() -> Setup:
    experiment = Experiment()
    experiment.model.widths, experiment.model.hidden = [8, 16], 24
    return prepare(experiment)


@pytest.fixture
def folder(setup: Setup, tmp_path: Path) -> Path:
    """What a run leaves that is exported: the journal and the model."""
    Journal.open(tmp_path / "journal.sqlite", to_json(setup.experiment)).close()
    save_model(tmp_path / "last.safetensors", setup.initial_params, setup.spec)
    return tmp_path


def test_the_runs_network_is_exported_beside_its_model(
    setup: Setup, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(folder)]) == 0

    raw, normalization = setup.data.test.features, setup.data.info.normalization
    predictor = OnnxPredictor(folder / "last-onnx-float32.onnx", normalization)
    with torch.no_grad():
        inputs = torch.from_numpy(normalization.apply(raw))
        expected = setup.model.eval()(inputs).numpy()
    np.testing.assert_allclose(predictor.predict(raw), expected, atol=1e-4)
    out = capsys.readouterr().out
    score = (expected.argmax(axis=1) == setup.data.test.targets).mean()
    assert f"score on held-out data: {score:.4f}" in out
    assert "100.0% of the decisions are the same" in out


def test_a_single_file_goes_where_it_is_asked_for(
    setup: Setup, folder: Path, tmp_path: Path
) -> None:
    save_model(folder / "best.safetensors", setup.initial_params, setup.spec)
    out = tmp_path / "best.onnx"
    options = ["--to", "tensorrt", "--precision", "float32", "--out", str(out)]
    assert main(["export", str(folder / "best.safetensors"), *options]) == 0
    assert out.stat().st_size > 4 * setup.spec.size


def test_a_network_that_lost_channels_is_read_back(setup: Setup, folder: Path) -> None:
    example = setup.data.info.normalization.apply(setup.data.test.features[:1])
    smaller = narrowed(setup.model, example, share=0.5, multiple=1)
    spec = spec_of(smaller)
    assert spec.size < setup.spec.size
    save_model(folder / "last.safetensors", params_of(smaller, spec), spec)

    network = read_run(folder, None, allow=()).network

    np.testing.assert_array_equal(params_of(network, spec), params_of(smaller, spec))


def test_int8_is_calibrated_on_training_examples_drawn_by_the_seed(
    setup: Setup, folder: Path
) -> None:
    first, again = (read_run(folder, None, allow=()).calibration() for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(first) == setup.experiment.compression.calibration_examples
    trained_on = setup.data.info.normalization.apply(setup.data.train.features)
    known = {example.tobytes() for example in trained_on}
    assert all(example.tobytes() in known for example in first)


def test_code_that_a_folder_names_is_imported_only_if_it_is_allowed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment()
    experiment.model.builder, experiment.run.allow = "antigravity:fly", ["antigravity"]
    (folder / "journal.sqlite").unlink()
    Journal.open(folder / "journal.sqlite", to_json(experiment)).close()
    assert main(["export", str(folder)]) == 2
    assert "model.builder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["journal.sqlite", "last.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "nonsense"])
def test_a_folder_that_is_not_a_whole_run_is_refused(
    name: str, damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).unlink()
    if damage == "nonsense":
        (folder / name).write_bytes(b"nonsense" * 100)
    assert main(["export", str(folder)]) == 2
    assert name in capsys.readouterr().err


def test_a_model_of_another_run_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = load_file(folder / "last.safetensors")
    name = next(iter(arrays))
    save_file(arrays | {name: np.zeros((3, 3, 3, 3, 3), np.float32)},
              folder / "last.safetensors")  # fmt: skip
    assert main(["export", str(folder)]) == 2
    assert "not a model of this run" in capsys.readouterr().err


def test_a_precision_that_a_backend_lacks_is_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--to", "onnx", "--precision", "int4_dynamic"]
    assert main(["export", str(tmp_path), *options]) == 2
    assert "onnx has no int4_dynamic" in capsys.readouterr().err
