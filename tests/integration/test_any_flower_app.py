"""Apps in Flower's documented style end alike in its own runtime and in ours."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from fedge.arrays import AnyArray
from tests.integration.flower_processes import REPOSITORY, Flower

pytestmark = pytest.mark.integration

APPS = Path(__file__).parent / "apps"
Flowers = Callable[[str, str], Path]


def ours(
    app: Path,
    *options: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run an app with `python -m fedge.simulate` in a folder of its own."""
    given = dict(environment or os.environ)
    return subprocess.run(
        [sys.executable, "-m", "fedge.simulate", str(app), *options],
        cwd=folder,
        env=given | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def theirs(
    flower: Flower,
    stack: ExitStack,
    free_port: Callable[[], int],
    wait_for_port: Callable[[int], None],
    tmp_path: Path,
) -> Flowers:
    """Run an app with `flwr run` in Flower's simulation; return its result file."""

    def run(name: str, run_config: str) -> Path:
        port, result = free_port(), tmp_path / "theirs.json"
        flower.connect("sim", f'address = "127.0.0.1:{port}"\ninsecure = true')
        command = ["flower-superlink", "--insecure", "--simulation"]
        command += ["--port", str(port), "--disable-runtime-dependency-installation"]
        stack.enter_context(flower.process("superlink", command))
        wait_for_port(port)
        # A copy: `flwr run` rewrites a pyproject.toml that names federations.
        copy = shutil.copytree(APPS / name, tmp_path / name)
        config = f"{run_config} result='{result}'"
        size = ("--federation-config", "num-supernodes=6")
        output = flower.run_app("sim", config, *size, app=copy)
        assert result.exists(), output
        return result

    return run


def run_both(
    name: str, run_config: str, theirs: Flowers, flower: Flower, tmp_path: Path
) -> tuple[Path, Path]:
    """Return the result files of Flower's simulation and of ours."""
    result = tmp_path / "ours.json"
    options = ["--clients", "6", "-c", f"{run_config} result='{result}'"]
    ended = ours(APPS / name, *options, folder=tmp_path, environment=flower.environment)
    assert ended.returncode == 0, ended.stderr
    return theirs(name, run_config), result


def arrays_of(result: Path) -> dict[str, AnyArray]:
    with np.load(result.with_suffix(".npz")) as file:
        return dict(file)


def test_a_pytorch_app_with_mods_and_fedavg_learns_the_same(
    theirs: Flowers,
    flower: Flower,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = "train.lr=0.2 fraction-evaluate=1.0"
    results = run_both("digits", config, theirs, flower, tmp_path)
    expected, found = (arrays_of(result) for result in results)
    assert expected.keys() == found.keys()
    # FedAvg adds float32 in the order of the replies, which Flower draws anew in each
    # run: a few units in the last place, carried through three rounds of training.
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-5)
    told, ours_told = (json.loads(result.read_text("utf-8")) for result in results)
    for phase in ("train", "evaluate", "global"):
        assert len(told[phase]) >= 3
        for theirs_round, our_round in zip(told[phase], ours_told[phase], strict=True):
            assert our_round == pytest.approx(theirs_round, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "run_config"),
    [
        ("memory", "learning-rate=0.3 rounds=5"),
        ("polling", "nodes=6 draws=500 label='two words' verbose=true"),
    ],
)
def test_an_app_that_sorts_its_replies_ends_in_the_same_bits(
    name: str,
    run_config: str,
    theirs: Flowers,
    flower: Flower,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    expected, found = run_both(name, run_config, theirs, flower, tmp_path)
    assert json.loads(found.read_text("utf-8")) == json.loads(
        expected.read_text("utf-8")
    )
    assert arrays_of(expected).keys() == arrays_of(found).keys()
    for key, array in arrays_of(expected).items():
        assert arrays_of(found)[key].tobytes() == array.tobytes()
        assert arrays_of(found)[key].dtype == array.dtype


def test_an_app_says_itself_how_many_clients_it_has_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    copy = shutil.copytree(APPS / "memory", tmp_path / "memory")
    before = (copy / "pyproject.toml").read_bytes()
    result = tmp_path / "result.json"
    ended = ours(copy, "-c", f"result='{result}'", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    # Six clients, all asked once; four of them in each of four rounds, one breaks.
    assert "21 answers of clients, 1 failed" in ended.stderr.splitlines()[-1]
    assert (copy / "pyproject.toml").read_bytes() == before


def test_ctrl_c_ends_the_run_and_its_workers(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = ["-m", "fedge.simulate", str(APPS / "digits"), "--clients", "500"]
    process = subprocess.Popen(
        [sys.executable, *command, "-c", f"result='{result}' train.steps=500"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    assert any("begins" in line and line.startswith("client") for line in lines)
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "fedge: interrupted"
    assert below, "there were workers"
    _, alive = psutil.wait_procs(below, timeout=10.0)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
    assert not result.exists()
