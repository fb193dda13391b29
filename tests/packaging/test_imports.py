"""What a device imports is light, and nothing phones home or writes on import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "flwr", "hydra", "omegaconf", "onnx", "sklearn")


def loaded_after(code: str, folder: Path) -> set[str]:
    """Run `code` in a fresh interpreter with an empty home; return its modules."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("XDG_", "ORT_"))}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=kept | {"HOME": str(folder), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    modules: list[str] = json.loads(ended.stdout)
    return set(modules)


@pytest.mark.parametrize(
    "code",
    [
        "import fedge",
        "import fedge.release.install",
        "import fedge.runtime.predictor",
        "import fedge.runtime.selftest",
        "import fedge.runtime.training, fedge.data.inputs",
        "import fedge.config, fedge.strategy, strategies.fedadam",
    ],
)
def test_what_a_device_needs_pulls_in_nothing_heavy(code: str, tmp_path: Path) -> None:
    assert loaded_after(code, tmp_path).isdisjoint(HEAVY)


def test_training_without_torch_pulls_in_nothing_heavy_but_flower(
    tmp_path: Path,
) -> None:
    code = "import clients.app, clients.training, clients.onnx_training"
    assert loaded_after(code, tmp_path).isdisjoint(set(HEAVY) - {"flwr"})


def test_checking_the_settings_pulls_in_neither_torch_nor_flower(
    tmp_path: Path,
) -> None:
    code = (
        "import simulations.run; from server.settings import compose_experiment\n"
        "compose_experiment([])"
    )
    assert loaded_after(code, tmp_path).isdisjoint({"torch", "flwr", "onnx", "sklearn"})


def test_the_runtime_writes_nothing_at_home(tmp_path: Path) -> None:
    code = (
        "import fedge, os, onnxruntime\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "onnxruntime.get_available_providers()"
    )
    assert "onnxruntime" in loaded_after(code, tmp_path)
    assert list(tmp_path.rglob("*")) == []
