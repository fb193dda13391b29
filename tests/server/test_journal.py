import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from fedge.errors import JournalError
from server.journal import Journal, RoundRecord, read_rounds

CHILD = Path(__file__).with_name("commit_forever.py")


def load_child() -> ModuleType:
    spec = importlib.util.spec_from_file_location("commit_forever", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


child = load_child()
record_of: Callable[[int], RoundRecord] = child.record_of
state_of: Callable[[int], bytes] = child.state_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal.open(path, "{}")) as opened:
        yield opened


def with_rounds(path: Path, num_rounds: int) -> None:
    with closing(Journal.open(path, "{}")) as journal:
        journal.begin(state_of(-1))
        for index in range(num_rounds):
            best = state_of(index) if index == 0 else None
            journal.commit(record_of(index), state_of(index), best=best)


def read_everything(path: Path) -> None:
    with closing(Journal.open(path, "{}")) as journal:
        journal.last()
        journal.best()
        journal.rounds()


def change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql, values)
        connection.commit()


def test_a_new_journal_is_empty(journal: Journal) -> None:
    assert journal.last() is None
    assert journal.best() is None
    assert journal.rounds() == []


def test_what_was_committed_is_there_after_opening_again(path: Path) -> None:
    with_rounds(path, 3)
    with closing(Journal.open(path, "{}")) as journal:
        last, best = journal.last(), journal.best()
        assert last is not None
        assert best is not None
        assert (last.round_index, last.state) == (2, state_of(2))
        assert (best.round_index, best.state) == (0, state_of(0))
        assert [repr(r) for r in journal.rounds()] == [
            repr(record_of(index)) for index in range(3)
        ]


def test_the_first_state_is_stored_once(journal: Journal) -> None:
    journal.begin(b"first")
    journal.begin(b"second")
    last = journal.last()
    assert last is not None
    assert (last.round_index, last.state) == (-1, b"first")


@pytest.mark.parametrize("round_index", [-1, 0, 2])
def test_a_round_out_of_order_is_refused_and_changes_nothing(
    journal: Journal, round_index: int
) -> None:
    journal.begin(state_of(-1))
    journal.commit(record_of(0), state_of(0))
    with pytest.raises(JournalError, match=f"round {round_index} is not due, but 1"):
        journal.commit(record_of(round_index), b"x", best=b"x")
    assert len(journal.rounds()) == 1
    assert journal.best() is None


def test_a_round_without_a_first_state_counts_from_zero(journal: Journal) -> None:
    journal.commit(record_of(0), b"x")
    assert len(journal.rounds()) == 1


def test_other_settings_are_refused_by_their_names(path: Path) -> None:
    old = json.dumps({"run": {"seed": 0, "rounds": 5}, "data": {"name": "digits"}})
    new = json.dumps({"run": {"seed": 1, "rounds": 5}, "data": {"name": "x"}, "a": 1})
    Journal.open(path, old).close()
    Journal.open(path, old).close()
    with pytest.raises(JournalError) as caught:
        Journal.open(path, new)
    message = str(caught.value)
    assert "run.seed: 0 there, 1 here" in message
    assert "data.name: 'digits' there, 'x' here" in message
    assert "a: None there, 1 here" in message
    assert "rounds" not in message


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database at all, " * 100)
    with pytest.raises(JournalError, match="not a readable journal"):
        Journal.open(path, "{}")
    with pytest.raises(JournalError, match="not a readable journal"):
        read_rounds(path)


def test_a_folder_in_the_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.open(path, "{}")


def test_a_file_in_the_place_of_the_folder_is_refused(path: Path) -> None:
    path.parent.write_text("a file")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.open(path, "{}")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_overwritten_pages_are_a_damaged_journal_and_no_other_state(
    path: Path, place: float
) -> None:
    with_rounds(path, 3)
    data = bytearray(path.read_bytes())
    start = int(place * len(data)) // 4096 * 4096
    data[start : start + 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    with pytest.raises(JournalError):
        read_everything(path)


def test_a_file_cut_in_half_is_a_damaged_journal(path: Path) -> None:
    with_rounds(path, 3)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(JournalError):
        read_everything(path)


@pytest.mark.parametrize("value", [b"another state", "text", 5])
def test_another_state_than_was_stored_is_noticed(path: Path, value: object) -> None:
    with_rounds(path, 1)
    change(path, "UPDATE checkpoints SET state = ? WHERE name = 'last'", value)
    with closing(Journal.open(path, "{}")) as journal:
        with pytest.raises(JournalError, match="the state 'last' is damaged"):
            journal.last()
        assert journal.best() is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{"])
def test_a_damaged_record_is_noticed(path: Path, text: str) -> None:
    with_rounds(path, 1)
    change(path, "UPDATE rounds SET record = ?", text)
    with pytest.raises(JournalError, match="a round's record is damaged"):
        read_rounds(path)


def test_damaged_settings_and_other_formats_are_noticed(path: Path) -> None:
    with_rounds(path, 1)
    change(path, "UPDATE meta SET value = '{' WHERE name = 'settings'")
    with pytest.raises(JournalError, match="not a readable journal"):
        Journal.open(path, "{}")
    change(path, "UPDATE meta SET value = '9' WHERE name = 'format'")
    with pytest.raises(JournalError, match="format '9', need '1'"):
        Journal.open(path, "{}")


def test_records_are_read_whatever_the_settings(path: Path) -> None:
    with_rounds(path, 2)
    assert [record.round_index for record in read_rounds(path)] == [0, 1]
    with pytest.raises(JournalError, match="not a readable journal"):
        read_rounds(path.with_name("missing.sqlite"))
    assert not path.with_name("missing.sqlite").exists()


SMALL_DISK = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", *options], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_the_round_and_nothing_else(small_disk: Path) -> None:
    path = small_disk / "journal.sqlite"
    with_rounds(path, 2)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (SMALL_DISK - path.stat().st_size - 20_000))
    with closing(Journal.open(path, "{}")) as journal:
        with pytest.raises(JournalError, match=r"round 2 could not be stored.*room"):
            journal.commit(record_of(2), b"z" * 200_000, best=b"z" * 200_000)
        last = journal.last()
        assert last is not None
        assert last.state == state_of(1)
        filler.unlink()
        journal.commit(record_of(2), b"z" * 200_000, best=b"z" * 200_000)
        assert len(journal.rounds()) == 3


def test_no_room_for_the_first_state_is_told(small_disk: Path) -> None:
    path = small_disk / "journal.sqlite"
    with closing(Journal.open(path, "{}")) as journal:
        with pytest.raises(JournalError, match="the first state could not be stored"):
            journal.begin(b"z" * 2 * SMALL_DISK)
        assert journal.last() is None


def test_a_process_that_is_killed_leaves_whole_rounds(path: Path) -> None:
    for kill_after in (0.0, 0.003, 0.007, 0.012, 0.03):
        told = run_and_kill(path, kill_after)
        with closing(Journal.open(path, "{}")) as journal:
            last, best = journal.last(), journal.best()
            rounds = [record.round_index for record in journal.rounds()]
        assert last is not None
        assert best is not None
        assert last.round_index in (told, told + 1)
        assert last.state == state_of(last.round_index)
        assert best == last
        assert rounds == list(range(last.round_index + 1))


def run_and_kill(path: Path, kill_after: float) -> int:
    """Return the last round that the child told of before it was killed."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CHILD.parents[2])},
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        time.sleep(kill_after)
        process.kill()
        lines += process.stdout.readlines()
    return int([line for line in lines if line.endswith("\n")][-1])
