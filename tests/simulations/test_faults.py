"""The coordinator dies or cannot write when it is told to, once, and for real."""

import os
import resource
import signal
from contextlib import closing
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp

from fedge.config import CrashMoment, FaultsConfig
from fedge.errors import JournalError
from fedge.flower import Faults, LocalGrid
from fedge.flower.checksums import Checksums
from server.events import LogObserver
from server.journal import Journal, read_rounds
from simulations.faults import coordinator_faults, faulty_app, faulty_grid
from tests.server.commit_forever import record_of, state_of

NUM_ROUNDS = 5
DISK_FULL, BROKEN = 3, 4


def run(folder: Path, config: FaultsConfig) -> int:
    """Commit five rounds in a process of its own; return how it ended."""
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            code = commit_rounds(folder, config)
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def commit_rounds(folder: Path, config: FaultsConfig) -> int:
    try:
        with (
            coordinator_faults(config, folder, LogObserver()) as observer,
            closing(Journal.open(folder / "journal.sqlite", "{}")) as journal,
        ):
            journal.begin(state_of(-1))
            last = journal.last()
            first = last.round_index + 1 if last else 0
            observer.run_started(first_round=first, num_rounds=NUM_ROUNDS)
            for index in range(first, NUM_ROUNDS):
                journal.commit(record_of(index), state_of(index), best=state_of(index))
                observer.round_finished(record_of(index))
            observer.stage_started("signing the release")
            (folder / "signed").touch()
            observer.stage_started("pushing to the devices")
            (folder / "pushed").touch()
    except JournalError as exc:
        # The disk is as large as ever again: there is room for what must be said.
        (folder / "said").write_text(f"{exc}\n" * 1000, encoding="utf-8")
        return DISK_FULL
    return 0


def rounds_in(folder: Path) -> list[int]:
    return [record.round_index for record in read_rounds(folder / "journal.sqlite")]


CRASHES = [
    (CrashMoment.committing, 1, -signal.SIGXFSZ, 0),
    (CrashMoment.committing, 3, -signal.SIGXFSZ, 2),
    (CrashMoment.committed, 3, -signal.SIGKILL, 3),
    (CrashMoment.signing, 3, -signal.SIGKILL, 5),
    (CrashMoment.pushing, 3, -signal.SIGKILL, 5),
]


@pytest.mark.parametrize(("moment", "number", "code", "kept"), CRASHES)
def test_a_coordinator_dies_when_it_is_told_to_and_goes_on_when_started_again(
    tmp_path: Path, moment: CrashMoment, number: int, code: int, kept: int
) -> None:
    faults = FaultsConfig(crash_coordinator_round=number, crash_coordinator_at=moment)
    assert run(tmp_path, faults) == code
    assert rounds_in(tmp_path) == list(range(kept))
    assert not (tmp_path / "pushed").exists()
    assert (tmp_path / "signed").exists() == (moment is CrashMoment.pushing)
    assert run(tmp_path, faults) == 0
    assert rounds_in(tmp_path) == list(range(NUM_ROUNDS))
    assert (tmp_path / "pushed").exists()


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_full_disk_is_an_error_of_ours_and_loses_nothing(
    tmp_path: Path, number: int
) -> None:
    faults = FaultsConfig(disk_full_round=number)
    assert run(tmp_path, faults) == DISK_FULL
    assert rounds_in(tmp_path) == list(range(number - 1))
    said = (tmp_path / "said").read_text("utf-8")
    assert f"round {number - 1} could not be stored" in said
    assert "make room on the disk" in said
    assert run(tmp_path, faults) == 0
    assert rounds_in(tmp_path) == list(range(NUM_ROUNDS))


def test_two_faults_strike_one_after_the_other(tmp_path: Path) -> None:
    faults = FaultsConfig(disk_full_round=2, crash_coordinator_round=4)
    assert run(tmp_path, faults) == DISK_FULL
    assert run(tmp_path, faults) == -signal.SIGXFSZ
    assert run(tmp_path, faults) == 0
    assert rounds_in(tmp_path) == list(range(NUM_ROUNDS))


def test_without_faults_nothing_is_in_the_way(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with coordinator_faults(FaultsConfig(), tmp_path, LogObserver()) as observer:
        observer.run_started(first_round=0, num_rounds=2)
        observer.stage_started("signing the release")
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    assert not list(tmp_path.iterdir())


def test_a_grid_and_an_app_get_only_what_the_settings_ask_for() -> None:
    app = ClientApp()
    grid = LocalGrid(app, num_clients=1, workers=0)
    crashes, drops = FaultsConfig(client_crash=0.1), FaultsConfig(drop=0.1)
    assert faulty_app(app, drops, seed=0) is app
    assert faulty_app(app, crashes, seed=0) is not app
    assert faulty_grid(grid, crashes, seed=0) is grid
    assert isinstance(faulty_grid(grid, drops, seed=0), Faults)
    assert isinstance(faulty_grid(grid, FaultsConfig(nan=0.1), seed=0), Checksums)
