"""Whatever goes wrong, a run ends or stops, and goes on to the same model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clients.app import app as client_app
from fedge.config import Experiment
from fedge.errors import RoundAbortedError
from fedge.flower import LocalGrid
from server.app import coordinate
from server.journal import RoundRecord
from server.settings import compose_experiment
from simulations.faults import faulty_app, faulty_grid

FAST = [
    "run=quick",
    "model=logistic",
    "train.epochs=1",
    "partition=iid",
    "fleet.num_devices=8",
    "run.rounds=3",
    "run.cohort=7",
    "run.max_attempts=20",
    "release=none",
    "compression=none",
    "data.max_examples=200",
]
MEDIAN = ["strategy=flower", "strategy._target_=flwr.serverapp.strategy.FedMedian"]
SETTINGS = {
    "plain": ["secagg=off"],
    "secure": ["secagg=semi_honest", "secagg.min_cohort=3"],
    "updates": ["secagg=off", *MEDIAN],
}
FAULTS = [
    "drop",
    "delay",
    "duplicate",
    "reorder",
    "truncate",
    "bit_flip",
    "nans",
    "client_crash",
    "replay",
    "storm",
]


@pytest.fixture(autouse=True)
def _open_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("FEDGE_SECAGG", "optional")


@dataclass
class Watcher:
    """Remembers the rounds; stops the run after one, as Ctrl-C would."""

    stop_after: int = -1
    rounds: list[RoundRecord] = field(default_factory=list)

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        pass

    def round_finished(self, record: RoundRecord) -> None:
        self.rounds.append(record)
        if record.round_index == self.stop_after:
            raise KeyboardInterrupt

    def stage_started(self, stage: str) -> None:
        pass


def run(experiment: Experiment, folder: Path, *, stop_after: int = -1) -> Watcher:
    watcher, faults = Watcher(stop_after), experiment.faults
    seed, num_clients = experiment.run.seed, experiment.fleet.num_devices
    app = faulty_app(client_app, faults, seed=seed)
    with LocalGrid(
        app,
        num_clients=num_clients,
        workers=0,
        node_config=lambda index: {"secagg-min-cohort": 3},
    ) as grid:
        coordinate(faulty_grid(grid, faults, seed=seed), experiment, folder, watcher)
    return watcher


def experiment_of(faults: str, overrides: Sequence[str]) -> Experiment:
    return compose_experiment([*FAST, f"faults={faults}", *overrides])


def rarer(faults: str, setting: str) -> list[str]:
    """Return what makes a loss rarer where each round has three trips to fail in."""
    losing = faults in ("drop", "truncate", "bit_flip", "client_crash")
    return [f"faults.{faults}=0.05"] if losing and setting == "secure" else []


def model_in(folder: Path) -> bytes:
    return (folder / "last.safetensors").read_bytes()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("faults", FAULTS)
def test_an_interrupted_run_goes_on_to_the_model_of_the_undisturbed_one(
    faults: str, setting: str, tmp_path: Path
) -> None:
    experiment = experiment_of(faults, [*SETTINGS[setting], *rarer(faults, setting)])
    whole = run(experiment, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "parts", stop_after=0)
    run(experiment, tmp_path / "parts")
    assert model_in(tmp_path / "parts") == model_in(tmp_path / "whole")
    assert all(record.answered <= record.asked for record in whole.rounds)
    values = load_file(tmp_path / "whole" / "last.safetensors")
    assert all(np.isfinite(value).all() for value in values.values())


HARMLESS = [
    *((faults, setting) for faults in ("delay", "reorder") for setting in SETTINGS),
    ("duplicate", "plain"),
    ("duplicate", "secure"),
    ("duplicate", "updates"),
    *(("replay", setting) for setting in SETTINGS),
]


@pytest.mark.parametrize(("faults", "setting"), HARMLESS)
def test_what_loses_nothing_changes_nothing(
    faults: str, setting: str, tmp_path: Path
) -> None:
    run(experiment_of("none", SETTINGS[setting]), tmp_path / "clean")
    run(experiment_of(faults, SETTINGS[setting]), tmp_path / "faulty")
    assert model_in(tmp_path / "faulty") == model_in(tmp_path / "clean")


def test_a_run_that_loses_too_much_stops_with_an_error_and_keeps_its_rounds(
    tmp_path: Path,
) -> None:
    losing = ["faults.drop=0.9", "run.min_answers=7", "run.max_attempts=2"]
    experiment = experiment_of("none", [*SETTINGS["plain"], *losing])
    with pytest.raises(RoundAbortedError, match="failed 2 times"):
        run(experiment, tmp_path)
