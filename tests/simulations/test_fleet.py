"""A simulated run in virtual time: its record, its picture, and its resumption."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clients.app import app as client_app
from fedge.fleet import Outcome, read_trace
from fedge.flower import LocalGrid
from fedge.flower.virtual_fleet import VirtualFleet
from server.app import coordinate
from server.events import LogObserver, Observer
from server.journal import RoundRecord
from server.settings import compose_experiment
from server.setup import Setup, prepare
from simulations.fleet import (
    PICTURE,
    TRACE,
    draw_fleet,
    fleet_grid,
    flops_of,
    flops_per_example,
)

QUICK = [
    "secagg=off",
    "release=none",
    "compression=none",
    "model=logistic",
    "partition=iid",
    "run.rounds=2",
    "run.cohort=3",
    "run.min_answers=1",
    "fleet.num_devices=6",
    "train.epochs=1",
]


@pytest.fixture(autouse=True)
def _devices_may_train_openly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDGE_SECAGG", "optional")


def setup_of(*overrides: str) -> Setup:
    return prepare(compose_experiment([*QUICK, *overrides]))


def run(setup: Setup, folder: Path, observer: Observer | None = None) -> float:
    """Run or go on with a federation; return the fleet's clock, 0 without one."""
    base = LocalGrid(client_app, num_clients=setup.num_devices, workers=0)
    folder.mkdir(exist_ok=True)
    with closing(base), fleet_grid(base, setup, folder) as grid:
        coordinate(grid, setup.experiment, folder, observer or LogObserver())
        return grid.clock_seconds if isinstance(grid, VirtualFleet) else 0.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, float]]:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDGE_SECAGG", "optional")
        yield folder, run(setup_of("fleet=pi_zoo"), folder)


def test_every_message_has_a_row(finished: tuple[Path, float]) -> None:
    folder, clock = finished
    rows = [row for row in read_trace(folder / TRACE) if row.phase == "train"]
    assert [row.group for row in rows] == ["0.0"] * 3 + ["1.0"] * 3
    assert all(row.outcome is Outcome.ok and row.energy_joules > 0 for row in rows)
    assert rows[-1].clock_seconds == clock > 0.0
    assert {row.profile for row in rows} <= {
        "raspberry_pi_zero_2",
        "raspberry_pi_4",
        "raspberry_pi_5",
    }


def test_the_run_has_a_picture(finished: tuple[Path, float]) -> None:
    folder, _ = finished
    draw_fleet(folder)
    assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")


def test_a_fleet_without_virtual_time_leaves_no_trace(tmp_path: Path) -> None:
    base = LocalGrid(client_app, num_clients=6, workers=0)
    with fleet_grid(base, setup_of(), tmp_path) as grid:
        assert grid is base
    draw_fleet(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_simulated_run_can_be_replayed(
    finished: tuple[Path, float], tmp_path: Path
) -> None:
    folder, _ = finished
    setup = setup_of("fleet=trace", f"fleet.path={folder / TRACE}")
    run(setup, tmp_path)
    rows = read_trace(tmp_path / TRACE)
    assert {row.profile for row in rows} == {"recorded"}
    assert rows[-1].clock_seconds > 0.0


class StopsAfterOneRound(LogObserver):
    """A user who loses patience."""

    def round_finished(self, record: RoundRecord) -> None:
        raise KeyboardInterrupt


def test_a_resumed_run_has_the_rows_of_the_uninterrupted_one(
    finished: tuple[Path, float], tmp_path: Path
) -> None:
    folder, clock = finished
    whole = read_trace(folder / TRACE)
    with pytest.raises(KeyboardInterrupt):
        run(setup_of("fleet=pi_zoo"), tmp_path, StopsAfterOneRound())
    # As if killed later: one row of the second round, and half of another.
    rows = (folder / TRACE).read_bytes().splitlines(keepends=True)
    begun = len(read_trace(tmp_path / TRACE))
    with (tmp_path / TRACE).open("ab") as file:
        file.write(rows[begun + 1] + rows[begun + 2][:20])
    assert run(setup_of("fleet=pi_zoo"), tmp_path) == clock
    again = [row for row in read_trace(tmp_path / TRACE) if row.phase == "train"]
    assert again == [row for row in whole if row.phase == "train"]


def test_a_run_that_finished_no_round_begins_its_record_anew(
    finished: tuple[Path, float], tmp_path: Path
) -> None:
    folder, _ = finished
    (tmp_path / TRACE).write_bytes((folder / TRACE).read_bytes())
    base = LocalGrid(client_app, num_clients=6, workers=0)
    with fleet_grid(base, setup_of("fleet=pi_zoo"), tmp_path) as grid:
        assert isinstance(grid, VirtualFleet)
        assert grid.clock_seconds == 0.0
    assert read_trace(tmp_path / TRACE, may_be_cut=True) == []


def test_a_forward_pass_is_counted() -> None:
    setup = setup_of()
    features = setup.data.train.features[0].size
    # A matrix product: one multiplication and one addition for each weight.
    expected = 2.0 * features * setup.data.info.num_outputs
    assert flops_per_example(setup.model, setup.data) == expected


def test_work_is_examples_times_epochs_or_steps_times_batch() -> None:
    by_epochs, by_steps = setup_of("train.epochs=2"), setup_of("train.steps=7")
    batch = by_steps.experiment.train.batch_size
    forward = flops_per_example(by_epochs.model, by_epochs.data)
    examples = len(by_epochs.data.train) / 6
    assert flops_of(by_epochs)(0, "train") == pytest.approx(
        3 * forward * 2 * examples, rel=0.01
    )
    assert flops_of(by_steps)(0, "train:fit") == 3 * forward * 7 * batch
    assert flops_of(by_epochs)(0, "train:mask") == 0.0
    assert flops_of(by_epochs)(0, "evaluate") == pytest.approx(
        forward * examples, rel=0.01
    )


def test_work_can_be_fixed_whatever_the_epochs() -> None:
    flops = flops_of(setup_of("fleet.flops_per_request=1e9", "train.epochs=9"))
    assert flops(0, "train") == 1e9


def test_a_deadline_in_virtual_time_leaves_slow_devices_out(tmp_path: Path) -> None:
    run(setup_of("fleet=pi_zoo", "run.cohort=6", "run.deadline_seconds=0.5"), tmp_path)
    rows = [row for row in read_trace(tmp_path / TRACE) if row.phase == "train"]
    assert {row.outcome for row in rows} <= {Outcome.ok, Outcome.late}
    assert all(row.received_seconds - row.sent_seconds <= 0.5 for row in rows)
