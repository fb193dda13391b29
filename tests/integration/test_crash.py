"""Killed at random moments and started again, a run ends in the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Shards need no heavy import, so that most of a process' life is the run itself.
OVERRIDES = (
    "model=logistic",
    "partition=shards",
    "run.rounds=60",
    "run.cohort=8",
    "fleet.num_devices=10",
    # `auto` is chosen by timing, once for a run: two runs may choose differently.
    "engine.batching=never",
)
# From the first moments to well into the release, on a slow machine.
LONGEST_LIFE_SECONDS = 9.0


def start(folder: Path, *overrides: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, "-m", "simulations.run", *overrides],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def summary_of(run: Path) -> dict[str, object]:
    summary: dict[str, object] = json.loads((run / "summary.json").read_text("utf-8"))
    return summary


def run_with_kills(folder: Path, num_kills: int, rng: random.Random) -> Path:
    """Start a run, kill it so many times, let it finish; return its folder."""
    run = folder / "run"
    process = start(folder, *OVERRIDES, f"hydra.run.dir={run}")
    while not (run / "experiment.json").exists():
        assert process.poll() is None, "the run ended before it began"
        time.sleep(0.01)
    for _ in range(num_kills):
        try:
            process.wait(rng.uniform(0.0, LONGEST_LIFE_SECONDS))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        process = start(folder, f"run.resume={run}")
    finish(process)
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return summary_of(run_with_kills(folder, 0, random.Random(0)))


def check(run: Path, undisturbed: dict[str, object]) -> None:
    summary = summary_of(run)
    for name in ("model_sha256", "release_sha256", "rounds", "devices_on_release"):
        assert summary[name] == undisturbed[name], name
    assert summary["release_version"] == 1, "published more than once"


@pytest.mark.integration
def test_a_run_that_is_killed_a_few_times_ends_in_the_same_model(
    undisturbed: dict[str, object], tmp_path: Path
) -> None:
    check(run_with_kills(tmp_path, 3, random.Random(1)), undisturbed)


@pytest.mark.crash
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_kills_change_nothing(
    seed: int, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    check(run_with_kills(tmp_path, 10, random.Random(100 + seed)), undisturbed)
