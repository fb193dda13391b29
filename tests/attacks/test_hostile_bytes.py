"""Every parser of model bytes refuses hostile ones with an error of ours, cheaply.

Time is only bounded loosely here, as machines that run tests are busy; the figure is
what `python -m simulations.benchmarks.hostile` prints.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulations.benchmarks.hostile import CHILD_PARSERS, MAX_MEMORY_MB

ROOT = Path(__file__).parents[2]
PARSERS = (
    "predictor", "predictor (file)", "inspect", "compress", "unpack", "artifact",
    "delta", "passport", "array", "install", "health",
)  # fmt: skip
LOOSE_MILLISECONDS = 2000.0


@pytest.fixture(scope="module")
def costs() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "simulations.benchmarks.hostile", "--json"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["costs"]
    return found


def of(costs: list[dict[str, Any]], parser: str) -> list[dict[str, Any]]:
    found = [cost for cost in costs if cost["parser"] == parser]
    assert found
    return found


@pytest.mark.parametrize("parser", PARSERS)
def test_every_hostile_file_ends_in_an_error_of_ours(
    costs: list[dict[str, Any]], parser: str
) -> None:
    accepted = [cost for cost in of(costs, parser) if not cost["is_ours"]]
    assert accepted == []


@pytest.mark.parametrize("parser", PARSERS)
def test_no_hostile_file_costs_more_than_64_mb(
    costs: list[dict[str, Any]], parser: str
) -> None:
    large = [c for c in of(costs, parser) if c["memory_mb"] > MAX_MEMORY_MB]
    assert large == []


@pytest.mark.parametrize("parser", [p for p in PARSERS if p not in CHILD_PARSERS])
def test_no_hostile_file_takes_long(costs: list[dict[str, Any]], parser: str) -> None:
    slow = [c for c in of(costs, parser) if c["milliseconds"] > LOOSE_MILLISECONDS]
    assert slow == []
