import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedge.runtime.packed import PackedArray
from fedge.runtime.selftest import Job
from tests.fedge.runtime.onnx_models import WEIGHTS, linear_model

ROOT = Path(__file__).parents[3]
INPUTS = np.arange(8, dtype=np.uint8).reshape(2, 4)


def job_for(model: Path) -> Job:
    return Job(
        model=str(model),
        inputs=PackedArray.pack(INPUTS),
        mean=(0.0,),
        std=(1.0,),
        repeats=3,
        memory_mb=256,
        cpu_seconds=20,
    )


def answer(folder: Path, text: str) -> tuple[int, dict[str, object]]:
    (folder / "job.json").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "fedge.runtime.selftest", str(folder / "job.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    (line,) = done.stdout.splitlines()
    return done.returncode, json.loads(line)


def test_outputs_latency_and_memory_come_back(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_model())
    status, result = answer(tmp_path, job_for(tmp_path / "model.onnx").to_json())
    assert status == 0
    assert sorted(result) == ["latency_ms", "outputs", "peak_memory_mb"]
    expected = PackedArray.pack(INPUTS.astype(np.float32) @ WEIGHTS)
    assert result["outputs"] == {
        "dtype": "float32",
        "shape": [2, 3],
        "data": expected.data,  # small whole numbers: exact in float32
    }


@pytest.mark.parametrize("model", [b"rubbish", linear_model()[:-20]])
def test_a_bad_model_is_an_error_and_not_a_stack_trace(
    tmp_path: Path, model: bytes
) -> None:
    (tmp_path / "model.onnx").write_bytes(model)
    status, result = answer(tmp_path, job_for(tmp_path / "model.onnx").to_json())
    assert status == 1
    assert list(result) == ["error"]
    assert str(result["error"]).startswith("DataError: model file")


def test_a_job_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    status, result = answer(tmp_path, "{")
    assert (status, list(result)) == (1, ["error"])
