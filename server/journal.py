"""What survives a crash: one SQLite transaction per round.

A round counts only when its transaction is on the disk (`synchronous=FULL`: SQLite
waits for the disk before a commit returns). Whoever opens the file later finds the last
such round and nothing of a later one.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from fedge.errors import JournalError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (round INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS checkpoints (
    name TEXT PRIMARY KEY, round INTEGER NOT NULL, sha256 TEXT NOT NULL,
    state BLOB NOT NULL
);
"""
_FORMAT = "1"
LAST, BEST = "last", "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What is known of a finished round.

    Attributes:
        round_index: the round, from 0.
        attempts: tries it took, >= 1.
        asked: devices asked in the last try.
        answered: answers that were used.
        failed: devices that failed or answered wrongly.
        examples: examples behind the update: its total weight.
        train_loss: weighted mean of the devices' training losses.
        loss, score: of the new global model on held-out data; NaN if not evaluated.
        device_score: weighted mean score on the cohort's own data; NaN if not measured.
        learning_rate: local learning rate.
        sparsity: share of the prunable weights that are zero after the round.
        bytes_down, bytes_up: training payload of all devices in this round.
        seconds: wall time of the round.
    """

    round_index: int
    attempts: int
    asked: int
    answered: int
    failed: int
    examples: float
    train_loss: float
    loss: float
    score: float
    device_score: float
    learning_rate: float
    sparsity: float
    bytes_down: int
    bytes_up: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A stored state.

    Attributes:
        round_index: the round after which it was stored; -1 before the first.
        state: see `state_codec`.
    """

    round_index: int
    state: bytes = field(repr=False)


class Journal:
    """The journal of one run.

    Guarantee: after a crash at any moment, `last()` is the state of the last round
    whose `commit` returned, or of the one that was being committed.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path, settings: str) -> Self:
        """Open the journal at `path`, or begin it.

        Args:
            path: the SQLite file.
            settings: the run's settings (JSON); a journal belongs to one set of them.

        Raises:
            JournalError: the file is damaged, or belongs to other settings.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, isolation_level=None)
        except (OSError, sqlite3.DatabaseError) as exc:
            raise JournalError(f"{path}: cannot be opened ({exc})") from exc
        journal = cls(connection, path)
        try:
            journal._prepare(settings)
        except BaseException:
            journal.close()
            raise
        return journal

    def _prepare(self, settings: str) -> None:
        try:
            # One coordinator at a time; with a write-ahead log FULL makes a commit
            # durable (the rollback journal would leave its folder unsynced).
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
            self._check_meta("format", _FORMAT)
            self._check_settings(settings)
        except (sqlite3.DatabaseError, ValueError) as exc:
            raise JournalError(f"{self._path}: not a readable journal ({exc})") from exc

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def begin(self, state: bytes) -> None:
        """Store the state before the first round, unless there is one already.

        Raises:
            JournalError: the disk is full; nothing changed.
        """
        if self.last() is None:
            with self._transaction("the first state") as cursor:
                _put(cursor, LAST, -1, state)

    def commit(
        self, record: RoundRecord, state: bytes, *, best: bytes | None = None
    ) -> None:
        """Make a round count: its record and the state after it, at once.

        Args:
            record: the round; the one after the last committed.
            state: the state after it.
            best: the state that this round's score is of, if it is the best so far.

        Raises:
            JournalError: another round is due, or the disk is full; nothing changed.
        """
        last = self.last()
        due = 0 if last is None else last.round_index + 1
        if record.round_index != due:
            raise JournalError(f"round {record.round_index} is not due, but {due}")
        row = (record.round_index, json.dumps(asdict(record)))
        with self._transaction(f"round {record.round_index}") as cursor:
            cursor.execute("INSERT INTO rounds VALUES (?, ?)", row)
            _put(cursor, LAST, record.round_index, state)
            if best is not None:
                _put(cursor, BEST, record.round_index, best)

    def last(self) -> Checkpoint | None:
        """Return the state after the last committed round, if there is any state."""
        return self._checkpoint(LAST)

    def best(self) -> Checkpoint | None:
        """Return the state with the best score so far, if any was evaluated."""
        return self._checkpoint(BEST)

    def rounds(self) -> list[RoundRecord]:
        """Return the finished rounds, in order."""
        rows = self._query("SELECT record FROM rounds ORDER BY round")
        return [_record_of(text) for (text,) in rows]

    def _checkpoint(self, name: str) -> Checkpoint | None:
        rows = self._query(
            "SELECT round, sha256, state FROM checkpoints WHERE name = ?", name
        )
        if not rows:
            return None
        ((round_index, sha256, state),) = rows
        is_whole = isinstance(state, bytes) and isinstance(round_index, int)
        if not is_whole or hashlib.sha256(state).hexdigest() != sha256:
            raise JournalError(f"{self._path}: the state {name!r} is damaged")
        return Checkpoint(round_index, state)

    def _check_settings(self, settings: str) -> None:
        stored = self._check_meta("settings", settings, raises=False)
        if stored != settings:
            differing = _differences(json.loads(stored), json.loads(settings))
            raise JournalError(
                f"{self._path}: belongs to other settings ({', '.join(differing)}); "
                f"resume with the same ones or use another folder"
            )

    def _check_meta(self, name: str, value: str, *, raises: bool = True) -> str:
        self._connection.execute(
            "INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value)
        )
        ((stored,),) = self._query("SELECT value FROM meta WHERE name = ?", name)
        if raises and stored != value:
            raise JournalError(f"{self._path}: {name} {stored!r}, need {value!r}")
        return str(stored)

    def _query(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        try:
            with closing(self._connection.execute(sql, values)) as cursor:
                return cursor.fetchall()
        except sqlite3.DatabaseError as exc:
            raise JournalError(f"{self._path}: not a readable journal ({exc})") from exc

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Cursor]:
        """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK if the block raises."""
        try:
            yield self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("COMMIT")
        except sqlite3.DatabaseError as exc:
            raise JournalError(
                f"{self._path}: {what} could not be stored ({exc}); make room on the "
                f"disk, or stop whoever else uses the folder, and resume"
            ) from exc
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _put(cursor: sqlite3.Cursor, name: str, round_index: int, state: bytes) -> None:
    digest = hashlib.sha256(state).hexdigest()
    cursor.execute(
        "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
        (name, round_index, digest, state),
    )


def _record_of(text: object) -> RoundRecord:
    try:
        values = json.loads(str(text))
        return RoundRecord(
            **{part.name: values[part.name] for part in fields(RoundRecord)}
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise JournalError("a round's record is damaged") from exc


def _differences(
    stored: Mapping[str, object], given: Mapping[str, object], prefix: str = ""
) -> list[str]:
    found = []
    for name in sorted({*stored, *given}):
        old, new = stored.get(name), given.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {old!r} there, {new!r} here")
    return found


def read_rounds(path: Path) -> list[RoundRecord]:
    """Return the finished rounds of a journal, whatever settings it belongs to.

    Raises:
        JournalError: there is no journal, or it is damaged.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        with closing(connection):
            return Journal(connection, path).rounds()
    except sqlite3.DatabaseError as exc:
        raise JournalError(f"{path}: not a readable journal ({exc})") from exc
