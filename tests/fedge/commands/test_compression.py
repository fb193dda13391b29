import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from fedge.__main__ import main
from fedge.arrays import AnyArray
from fedge.compress.int4 import store_int4
from fedge.compress.pack import unpack
from fedge.export.onnx import export_onnx


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that is right on all of its data, and that data."""
    folder = tmp_path_factory.mktemp("compress")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    inputs = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    model = export_onnx(net, inputs)
    session = ort.InferenceSession(model)
    targets = session.run(None, {"input": inputs})[0].argmax(axis=1)
    (folder / "net.onnx").write_bytes(model)
    (folder / "net4.onnx").write_bytes(store_int4(model))
    np.savez(folder / "data.npz", inputs=inputs, targets=targets)
    return folder


@pytest.fixture
def compress(folder: Path, tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    def call(
        *options: str, model: str = "net.onnx", data: str = ""
    ) -> tuple[int, Path]:
        out = tmp_path / "out"
        command = ["compress", str(folder / model), "--data"]
        command += [data or str(folder / "data.npz"), "--out", str(out), *options]
        return main(command), out

    return call


def test_the_smallest_good_form_is_written_with_its_report(
    compress: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compress("--max-drop", "0.1")
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    names = [c["name"] for c in report["candidates"]]
    assert names == ["float32", "int8", "int4", "codebook"]
    assert report["chosen"] in ("int4", "codebook")
    assert all(c["macs"] == 16 * 64 + 64 * 4 for c in report["candidates"])
    model = (out / "model.onnx").read_bytes()
    assert unpack((out / "model.onnx.zst").read_bytes(), max_bytes=10**6) == model
    ort.InferenceSession(model)
    assert (out / "candidates.png").read_bytes().startswith(b"\x89PNG")
    assert "times smaller when sent" in capsys.readouterr().out


def test_a_profile_brings_budgets_and_a_slower_clock(
    compress: Callable[..., tuple[int, Path]],
) -> None:
    code, out = compress("--profile", "pi4", "--max-drop", "0.1", "--form", "int8")
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert all(10 < c["memory_mb"] < 1024 for c in report["candidates"])


def test_weights_can_be_pruned_first(
    compress: Callable[..., tuple[int, Path]],
) -> None:
    code, out = compress("--sparsity", "0.5", "--max-drop", "1", "--form", "codebook")
    assert code == 0
    report = json.loads((out / "report.json").read_text())
    assert report["candidates"][0]["sparsity"] == pytest.approx(0.5)


def test_nothing_is_written_if_no_form_is_good_enough(
    compress: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compress("--max-kb", "0.5")
    assert code == 2
    assert not out.exists()
    error = capsys.readouterr().err
    assert "within the budgets" in error
    assert "--max-kb: " in error


def test_remedies_name_options_of_this_command(
    compress: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = compress("--form", "int4", "--max-drop", "0")
    assert code == 2
    assert not out.exists()
    error = capsys.readouterr().err
    assert "--max-drop: int4 loses" in error
    assert "--form smallest" in error
    assert "compression." not in error


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        (["--max-drop", "2"], "net.onnx", "--max-drop"),
        (["--sparsity", "1"], "net.onnx", "--sparsity"),
        (["--max-kb", "-1"], "net.onnx", "--max-kb"),
        (["--max-latency-ms", "nan"], "net.onnx", "--max-latency-ms"),
        ([], "data.npz", "not ONNX"),
        ([], "missing.onnx", "No such file"),
        ([], "net4.onnx", "is int4 already"),
        (["--task", "regression"], "net.onnx", "do not fit"),
    ],
)
def test_misuse_is_refused_with_a_reason(
    compress: Callable[..., tuple[int, Path]],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    model: str,
    message: str,
) -> None:
    code, out = compress(*options, model=model)
    assert code == 2
    assert not out.exists()
    assert message in capsys.readouterr().err


def test_a_fixed_batch_is_refused_with_the_remedy(
    compress: Callable[..., tuple[int, Path]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = onnx.load_model(folder / "net.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save_model(model, folder / "fixed.onnx")
    assert compress(model="fixed.onnx")[0] == 2
    assert "dynamic first axis" in capsys.readouterr().err


INPUTS, TARGETS = np.zeros((4, 16), np.float32), np.zeros(4, np.int64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"inputs": INPUTS}, "need 'inputs' and 'targets'"),
        ({"inputs": INPUTS, "targets": TARGETS[:3]}, "a target for each"),
        ({"inputs": INPUTS[:1], "targets": TARGETS[:1]}, "at least two"),
        ({"inputs": INPUTS, "targets": TARGETS + 0.5}, "whole numbers"),
        ({"inputs": INPUTS[:, :9], "targets": TARGETS}, "does not fit the model"),
        ({"inputs": INPUTS, "targets": TARGETS + 4}, "does not fit the model"),
        ({"inputs": INPUTS, "targets": TARGETS - 1}, "not negative"),
        ({"inputs": INPUTS * np.nan, "targets": TARGETS}, "finite"),
        ({"inputs": INPUTS, "targets": np.array(["a"] * 4)}, "finite numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    compress: Callable[..., tuple[int, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arrays: dict[str, AnyArray],
    message: str,
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    assert compress(data=str(tmp_path / "bad.npz"))[0] == 2
    assert message in capsys.readouterr().err


def test_a_file_with_objects_or_damage_is_refused(
    compress: Callable[..., tuple[int, Path]],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.npz"
    np.savez(bad, inputs=np.array([{}, {}], dtype=object), targets=TARGETS)
    assert compress(data=str(bad))[0] == 2
    whole = (folder / "data.npz").read_bytes()
    for data in (b"", whole[:100], whole[: len(whole) // 2], b"PK" + whole):
        bad.write_bytes(data)
        assert compress(data=str(bad))[0] == 2
    assert "not a readable .npz file" in capsys.readouterr().err


def test_an_archive_that_unpacks_to_too_much_is_refused(
    compress: Callable[..., tuple[int, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedge.compress.samples.MAX_MB", 1)
    np.savez_compressed(
        tmp_path / "bomb.npz", inputs=np.zeros((4, 100_000)), targets=TARGETS
    )
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000
    assert compress(data=str(tmp_path / "bomb.npz"))[0] == 2
    assert "MB unpacked, at most 1" in capsys.readouterr().err
