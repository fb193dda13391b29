"""A profiled run: the same model, and an account of its time that adds up."""

from pathlib import Path

import pytest
import torch

from clients.app import app as client_app
from fedge.config import Experiment
from fedge.flower import LocalGrid
from server.app import coordinate
from server.events import LogObserver
from server.journal import RoundRecord
from server.profile import IDLE, OTHER, PROFILE, read_profile
from server.settings import compose_experiment

NUM_ROUNDS = 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def experiment_of(*overrides: str) -> Experiment:
    return compose_experiment(
        [
            "run=quick",
            "model=logistic",
            "train.epochs=1",
            "fleet.num_devices=8",
            f"run.rounds={NUM_ROUNDS}",
            "run.cohort=4",
            "release=none",
            "data.max_examples=400",
            "secagg=off",
            *overrides,
        ]
    )


def run(folder: Path, *overrides: str, workers: int = 2) -> bytes:
    experiment = experiment_of(*overrides)
    with LocalGrid(client_app, num_clients=8, workers=workers, batching=False) as grid:
        coordinate(grid, experiment, folder, LogObserver())
    return (folder / "last.safetensors").read_bytes()


class Interrupter(LogObserver):
    """Stops the run after its first round, like Ctrl-C would."""

    def round_finished(self, record: RoundRecord) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [0, 2])
def test_a_profiled_run_makes_the_same_model(tmp_path: Path, workers: int) -> None:
    plain = run(tmp_path / "plain", workers=workers)
    profiled = run(tmp_path / "profiled", "run.profile=true", workers=workers)
    assert profiled == plain
    assert not (tmp_path / "plain" / PROFILE).exists()


@pytest.mark.parametrize("devices", ["true", "false"])
def test_each_round_adds_up_to_its_wall_time(tmp_path: Path, devices: str) -> None:
    run(tmp_path, "run.profile=true", f"run.evaluate_on_devices={devices}")
    shares = read_profile(tmp_path)
    rounds = [share for share in shares if share.round_index >= 0]
    assert [share.round_index for share in rounds] == list(range(NUM_ROUNDS))
    for share in shares:
        parts = share.coordinator.values()
        assert min(parts) >= 0.0
        assert sum(parts) == pytest.approx(share.wall_seconds, rel=1e-6)


def test_workers_say_what_they_did(tmp_path: Path) -> None:
    run(tmp_path, "run.profile=true")
    for share in (s for s in read_profile(tmp_path) if s.round_index >= 0):
        assert {"training", "reading data", "decoding", "adding up"} < {*share.workers}
        assert share.workers[IDLE] >= 0.0
        assert (share.clients, share.num_workers) == (4, 2)
        assert share.workers_cpu_seconds > 0.0
        assert "training" not in share.coordinator
        assert share.coordinator["waiting for workers"] > 0.0


def test_without_workers_the_coordinator_did_it_all(tmp_path: Path) -> None:
    run(tmp_path, "run.profile=true", workers=0)
    first = next(s for s in read_profile(tmp_path) if s.round_index == 0)
    assert first.coordinator["training"] > 0.0
    assert first.num_workers == 0
    assert sum(first.workers.values()) == 0.0


def test_what_is_before_and_after_the_rounds_has_a_name(tmp_path: Path) -> None:
    run(tmp_path, "run.profile=true")
    names = [share.name for share in read_profile(tmp_path)]
    assert names == ["preparing", *["round"] * NUM_ROUNDS, "finishing"]
    assert all(OTHER in share.coordinator for share in read_profile(tmp_path))


def test_a_run_that_was_stopped_leaves_the_profile_of_what_it_did(
    tmp_path: Path,
) -> None:
    experiment = experiment_of("run.profile=true")
    with (
        LocalGrid(client_app, num_clients=8, workers=0) as grid,
        pytest.raises(KeyboardInterrupt),
    ):
        coordinate(grid, experiment, tmp_path, Interrupter())
    assert [share.name for share in read_profile(tmp_path)] == [
        "preparing",
        "finishing",
    ]


def test_a_run_can_be_resumed_with_a_profile_or_without(tmp_path: Path) -> None:
    with (
        LocalGrid(client_app, num_clients=8, workers=0) as grid,
        pytest.raises(KeyboardInterrupt),
    ):
        coordinate(grid, experiment_of(), tmp_path, Interrupter())
    run(tmp_path, "run.profile=true")
    rounds = [s.round_index for s in read_profile(tmp_path) if s.round_index >= 0]
    assert rounds == [1, 2]
