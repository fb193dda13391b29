"""Traces: what happened in a federation, one row per message, as CSV or parquet.

The format is in docs/fleets.md. This is the only module of the room that touches
files. A trace may come from anybody, so everything in it is checked before it is used.
"""

import csv
import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedge.errors import ConfigError, DataError
from fedge.fleet.event import Event, Outcome

COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Event))
REQUIRED: tuple[str, ...] = COLUMNS[:9]

MAX_FILE_BYTES = 512 * 2**20
MAX_ROWS = 5_000_000
_MAX_TEXT = 100
_MAX_WHOLE = 2**63 - 1
# A time of 10**12 seconds is 30,000 years: a mistake in the unit.
_MAX_NUMBER = 1e12
_WHOLE = frozenset({"device", "bytes_down", "bytes_up"})
_TEXT = frozenset({"phase", "outcome", "profile", "group"})
_SIGNED = frozenset({"peak_celsius"})


class TraceWriter:
    """Appends events to a CSV file; each is with the system when `write` returns."""

    def __init__(self, path: Path) -> None:
        is_new = not path.exists() or path.stat().st_size == 0
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        if is_new:
            self._writer.writeheader()
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, event: Event) -> None:
        """Append one event; texts that a trace may not hold are made readable."""
        row = dataclasses.asdict(event)
        self._writer.writerow(row | {name: _readable(row[name]) for name in _TEXT})
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def write_trace(path: Path, events: Iterable[Event]) -> None:
    """Replace a CSV file by one with these events, whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with TraceWriter(temporary) as writer:
        for event in events:
            writer.write(event)
    os.replace(temporary, path)


def read_trace(path: Path, *, may_be_cut: bool = False) -> list[Event]:
    """Return the events of a trace.

    Args:
        path: a file that ends in .csv or .parquet.
        may_be_cut: forget a last line of a CSV file that was not written to its end,
            as a run that was killed leaves it.

    Raises:
        ConfigError: another kind of file, or parquet without pyarrow.
        DataError: missing, too large, empty, or a row that is not what it should be.
    """
    rows_of = {".csv": _csv_rows, ".parquet": _parquet_rows}.get(path.suffix.lower())
    if rows_of is None:
        raise ConfigError(
            f"fleet.path: {path.name!r} ends in neither .csv nor .parquet; convert it "
            f"to one of them"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file (fleet.path)")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise DataError(f"{path}: {size} bytes, at most {MAX_FILE_BYTES}; take a part")
    events: list[Event] = []
    last = -math.inf
    for number, row in enumerate(rows_of(path, may_be_cut), 1):
        if number > MAX_ROWS:
            raise DataError(f"{path}: more than {MAX_ROWS} rows; take a part")
        event = _event(row, f"{path.name}, row {number}")
        if event.received_seconds < last:
            raise DataError(
                f"{path.name}, row {number}: received_seconds "
                f"{event.received_seconds} is before the previous row's {last}; sort "
                f"the trace by received_seconds"
            )
        last = event.received_seconds
        events.append(event)
    if not events and not may_be_cut:
        raise DataError(f"{path}: no rows")
    return events


def _csv_rows(path: Path, may_be_cut: bool) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = (line for line in file if not may_be_cut or line.endswith("\n"))
            reader = csv.reader(lines, strict=True)
            names = next(reader, [])
            _check_columns(path, names)
            for number, values in enumerate(reader, 1):
                if len(values) != len(names):
                    raise DataError(
                        f"{path.name}, row {number}: {len(values)} values for "
                        f"{len(names)} columns"
                    )
                yield dict(zip(names, values, strict=True))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({exc})") from exc


def _parquet_rows(path: Path, _: bool) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as exc:
        raise ConfigError(
            f"fleet.path: {path.name!r} is a parquet file, which needs pyarrow; run "
            f"pip install pyarrow, or convert the trace to CSV"
        ) from exc
    try:
        with ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            _check_columns(path, names)
            if file.metadata.num_rows > MAX_ROWS:
                raise DataError(f"{path}: more than {MAX_ROWS} rows; take a part")
            for batch in file.iter_batches(batch_size=4096, columns=names):
                yield from batch.to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as exc:
        raise DataError(f"{path}: not a readable parquet file ({exc})") from exc


def _check_columns(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    unknown = [name[:40] for name in names if name not in COLUMNS]
    if missing or unknown or len(set(names)) != len(names):
        raise DataError(
            f"{path}: columns must be {', '.join(REQUIRED)}, and may be "
            f"{', '.join(COLUMNS[len(REQUIRED) :])}, each once; missing: "
            f"{', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(unknown[:9]) or 'none'}"
        )


def _event(row: Mapping[str, Any], where: str) -> Event:
    values = {name: _value(name, value, where) for name, value in row.items()}
    if values["received_seconds"] < values["sent_seconds"]:
        raise DataError(
            f"{where}: received_seconds {values['received_seconds']} is before "
            f"sent_seconds {values['sent_seconds']}"
        )
    return Event(**values)


def _value(name: str, value: object, where: str) -> Any:  # noqa: ANN401  # by column
    if name in _TEXT:
        return _text(name, value, where)
    if name in _WHOLE:
        return _whole(name, value, where)
    return _number(name, value, where)


def _text(name: str, value: object, where: str) -> str:
    if not isinstance(value, str) or value != _readable(value):
        raise DataError(
            f"{where}: {name} must be at most {_MAX_TEXT} printable letters"
        )
    if name == "outcome":
        known = [outcome.value for outcome in Outcome]
        if value not in known:
            raise DataError(f"{where}: outcome {value!r} is none of {', '.join(known)}")
        return Outcome(value)
    if name == "phase" and not value:
        raise DataError(f"{where}: phase is empty")
    return value


def _readable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_TEXT])


def _whole(name: str, value: object, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) < 20 else _MAX_WHOLE + 1
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where}: {name} {_shown(value)} is not a whole number >= 0")
    if not 0 <= value <= _MAX_WHOLE:
        raise DataError(f"{where}: {name} {_shown(value)} not in [0, 2**63)")
    return value


def _number(name: str, value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: {name} {_shown(value)} is not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError) as exc:
        raise DataError(f"{where}: {name} {_shown(value)} is not a number") from exc
    low = -_MAX_NUMBER if name in _SIGNED else 0.0
    if not low <= number <= _MAX_NUMBER:
        raise DataError(f"{where}: {name} {number} not in [{low:g}, {_MAX_NUMBER:g}]")
    return number


def _shown(value: object) -> str:
    return repr(value)[:40]
