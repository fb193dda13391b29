"""What a run signs, and that it signs the same thing however often it is started."""

import json
from pathlib import Path
from typing import Any

from clients.app import app
from fedge.flower import LocalGrid
from fedge.flower.local_grid import UserConfig
from fedge.release.keys import KeyRing
from fedge.release.passport import Passport
from server.app import coordinate
from server.publish import open_repository
from server.settings import compose_experiment
from server.setup import prepare


class Silent:
    """Watches a run and remembers its stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """Do nothing."""

    def round_finished(self, record: object) -> None:
        """Do nothing."""

    def stage_started(self, stage: str) -> None:
        self.stages.append(stage)


def run(folder: Path, *overrides: str) -> tuple[Silent, dict[str, Any]]:
    """Train for a round, publish, and push to devices that take no releases."""
    experiment = compose_experiment(
        [
            "run=quick",
            "run.rounds=1",
            "model=mlp",
            "secagg=off",
            "fleet.num_devices=4",
            "run.cohort=4",
            "compression.max_accuracy_drop=0.1",
            *overrides,
        ]
    )
    if not (folder / "keys").exists():
        KeyRing.create(folder / "keys", root_keys=3, root_threshold=2)

    def node_config(index: int) -> UserConfig:
        return {"partition-id": index, "secagg": "optional"}

    grid = LocalGrid(app, num_clients=4, node_config=node_config)
    watcher = Silent()
    coordinate(grid, experiment, folder, watcher)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return watcher, summary


def passport_in(folder: Path) -> Passport:
    setup = prepare(compose_experiment(["secagg=off"]))
    latest = open_repository(folder, setup).latest()
    assert latest is not None
    return latest


def test_a_run_that_publishes_twice_publishes_the_same_release(tmp_path: Path) -> None:
    settings = ("compression=int8", "compression.calibration=federated")
    watcher, first = run(tmp_path, *settings)
    assert "calibrating on the devices" in watcher.stages
    _, second = run(tmp_path, *settings)
    assert first["release_version"] == second["release_version"] == 1
    assert first["release_sha256"] == second["release_sha256"]
    # Integers alone: its outputs are promised bit for bit.
    assert passport_in(tmp_path).golden_sha256


def test_a_float_model_is_signed_with_a_tolerance_and_its_classes(
    tmp_path: Path,
) -> None:
    run(tmp_path, "compression=none")
    passport = passport_in(tmp_path)
    assert passport.golden_sha256 == ""
    assert passport.tolerance > 0.0
    assert passport.min_top1_agreement == 0.9
