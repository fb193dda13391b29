import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fedge.__main__ import main
from fedge.compress.codebook import store_codebook
from fedge.compress.delta import make_delta
from fedge.compress.int4 import store_int4
from fedge.compress.pack import pack, unpack
from fedge.compress.quantize import quantize_int8
from fedge.export.onnx import export_onnx
from tests.fedge.release.kit import release

INPUTS = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> bytes:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    with torch.no_grad():
        net.get_parameter("0.weight")[:15] = 0.0
    return export_onnx(net, INPUTS)


def told(
    data: bytes, folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, str]:
    (folder / "file").write_bytes(data)
    code = main(["inspect", str(folder / "file"), *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_models_inputs_weights_and_operators_are_told(
    model: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = told(model, tmp_path, capsys)
    assert code == 0
    assert "input: input float32 (batch, 20)" in out
    assert "output: output float32 (batch, 4)" in out
    assert "numbers: float32" in out
    assert "weights: 720, 41.7% of them zero" in out  # 300 of 20 * 30 + 30 * 4
    assert "2 Gemm" in out


def test_packed_quantized_models_are_told_apart(
    model: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    int8 = pack(quantize_int8(model, INPUTS), level=3)
    assert "numbers: int8" in told(int8, tmp_path, capsys)[1]
    book = store_codebook(model)
    code, out, _ = told(pack(book, level=3), tmp_path, capsys)
    assert code == 0
    assert "numbers: codebook" in out
    assert "weights: 720, " in out
    four = told(store_int4(model), tmp_path, capsys)[1]
    assert "numbers: int4" in four
    assert "weights: 720, " in four  # scales are no weights
    assert f"unpacked: {len(book)} bytes" in out
    assert "of them zero" in out


def test_a_delta_is_told_with_both_digests(
    model: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = bytes([*model[:-1], model[-1] ^ 1])
    _, out, _ = told(make_delta(model, other, level=3), tmp_path, capsys)
    assert "delta: a difference" in out
    assert out.count("SHA-256") == 2


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", bytes(100), b"\x28\xb5\x2f\xfdxx", b"FEDGE-D1"]
)
def test_what_is_no_model_is_refused(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = told(data, tmp_path, capsys)
    assert code == 2
    assert err.startswith("fedge: ")


def test_a_model_that_is_cut_off_is_refused(
    model: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(model[: len(model) // 2], tmp_path, capsys)[0] == 2


def test_what_is_too_large_is_refused_packed_or_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = bytes(2 << 20)
    for data in (large, pack(large, level=3)):
        code, _, err = told(data, tmp_path, capsys, "--max-mb", "1")
        assert code == 2
        assert "more than 1 MB" in err or "at most 1048576" in err
    assert told(b"", tmp_path, capsys, "--max-mb", "0")[0] == 2


def test_a_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "none: No such file" in capsys.readouterr().err


def test_the_passport_beside_a_model_is_told_with_whether_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact, passport = release(3)
    model, other = (unpack(a, max_bytes=10**6) for a in (artifact, release(4)[0]))
    custom = json.dumps(passport.to_custom())
    (tmp_path / "passport.json").write_text(custom, encoding="utf-8")
    code, out, _ = told(model, tmp_path, capsys)
    assert code == 0
    assert "passport: release 3 of" in out
    assert "of this file: yes" in out
    assert "of this file: NO" in told(other, tmp_path, capsys)[1]
    assert main(["inspect", str(tmp_path / "passport.json")]) == 0
    assert "passport: release 3 of" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{}", "[[[[", '{"passport": "{}"}', "\xff"])
def test_a_damaged_passport_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "passport.json").write_text(text, encoding="latin-1")
    assert main(["inspect", str(tmp_path / "passport.json")]) == 2
    assert "not a passport" in capsys.readouterr().err
