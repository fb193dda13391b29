import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import ConfigError, DataError
from fedge.fleet import Event, Outcome, TraceWriter, read_trace, write_trace
from fedge.fleet import trace as trace_module
from fedge.fleet.trace import COLUMNS, REQUIRED
from tests.fedge.fleet.kit import row

HEADER = (
    "device,phase,sent_seconds,received_seconds,bytes_down,bytes_up,compute_seconds,"
    "energy_joules,outcome"
)
GOOD = "3,train,1.5,2.5,100,50,0.25,7.0,ok"

amounts = st.floats(0, 1e12)
wholes = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=100)


@st.composite
def traces(draw: st.DrawFn) -> list[Event]:
    times = sorted(draw(st.lists(amounts, min_size=1, max_size=5)))
    return [
        Event(
            device=draw(wholes),
            phase=draw(texts.filter(bool)),
            sent_seconds=draw(st.floats(0, received)),
            received_seconds=received,
            bytes_down=draw(wholes),
            bytes_up=draw(wholes),
            compute_seconds=draw(amounts),
            energy_joules=draw(amounts),
            outcome=draw(st.sampled_from(Outcome)),
            profile=draw(texts),
            group=draw(texts),
            download_seconds=draw(amounts),
            upload_seconds=draw(amounts),
            peak_celsius=draw(st.floats(-1e3, 1e3)),
            clock_seconds=draw(amounts),
        )
        for received in times
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@given(events=traces())
def test_what_was_written_is_read(folder: Path, events: list[Event]) -> None:
    write_trace(folder / "t.csv", events)
    assert read_trace(folder / "t.csv") == events


@settings(deadline=None)  # the first example imports pyarrow
@given(events=traces())
def test_parquet_holds_the_same(folder: Path, events: list[Event]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    columns = {name: [getattr(event, name) for event in events] for name in COLUMNS}
    columns["outcome"] = [event.outcome.value for event in events]
    write_table(pyarrow.table(columns), folder / "t.parquet")
    assert read_trace(folder / "t.parquet") == events


def read(folder: Path, text: str, *, may_be_cut: bool = False) -> list[Event]:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return read_trace(folder / "t.csv", may_be_cut=may_be_cut)


def test_the_nine_columns_are_enough_in_any_order(tmp_path: Path) -> None:
    (event,) = read(tmp_path, f"{HEADER}\n{GOOD}\n")
    assert (event.device, event.phase, event.outcome) == (3, "train", Outcome.ok)
    assert event.energy_joules == 7.0
    turned = ",".join(reversed(HEADER.split(",")))
    values = ",".join(reversed(GOOD.split(",")))
    assert read(tmp_path, f"{turned}\n{values}\n") == [event]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-1,train,1,2,1,1,1,1,ok", "row 1: device '-1' is not a whole number"),
        ("1.0,train,1,2,1,1,1,1,ok", "device '1.0' is not a whole number"),
        (f"{2**63},train,1,2,1,1,1,1,ok", r"not in \[0, 2\*\*63\)"),
        (f"{'9' * 5000},train,1,2,1,1,1,1,ok", r"not in \[0, 2\*\*63\)"),
        ("1,,1,2,1,1,1,1,ok", "phase is empty"),
        (f"1,{'x' * 101},1,2,1,1,1,1,ok", "phase must be at most 100 printable"),
        ("1,train,nan,2,1,1,1,1,ok", "sent_seconds nan not in"),
        ("1,train,1,inf,1,1,1,1,ok", "received_seconds inf not in"),
        ("1,train,-1,2,1,1,1,1,ok", r"sent_seconds -1.0 not in \[0"),
        ("1,train,1,1e13,1,1,1,1,ok", "received_seconds 10000000000000.0 not in"),
        ("1,train,soon,2,1,1,1,1,ok", "sent_seconds 'soon' is not a number"),
        ("1,train,3,2,1,1,1,1,ok", "received_seconds 2.0 is before sent_seconds 3.0"),
        ("1,train,1,2,1,1,1,1,fine", "outcome 'fine' is none of ok, failed"),
        ("1,train,1,2,1,1,1,1", "8 values for 9 columns"),
        ('1,train,1,2,1,1,1,1,"ok', "not a CSV file in UTF-8"),
        ("1,train,1,2,1,1,-1,1,ok", "compute_seconds -1.0 not in"),
    ],
)
def test_a_row_that_cannot_be_is_refused(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, f"{HEADER}\n{line}\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "missing: device, phase"),
        (f"{HEADER}\n", "no rows"),
        (f"{HEADER},colour\n{GOOD},red\n", "unknown: colour"),
        (f"{HEADER},phase\n{GOOD},train\n", "each once"),
        (f"{HEADER.replace('outcome', 'profile')}\n{GOOD}\n", "missing: outcome"),
        (f"{HEADER}\n{GOOD}\n1,train,1,2,1,1,1,1,ok\n", "row 2: .* sort the trace"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        read(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(HEADER.encode() + b"\n\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_trace(tmp_path / "t.csv")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_broken_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(DataError, match="not a readable parquet file"):
        read_trace(tmp_path / "t.parquet")


def test_parquet_without_pyarrow_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install pyarrow, or convert"):
        read_trace(tmp_path / "t.parquet")


def test_another_kind_of_file_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ends in neither"):
        read_trace(tmp_path / "t.xlsx")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file \(fleet.path\)"):
        read_trace(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("limit", "says"), [("MAX_FILE_BYTES", "bytes, at most"), ("MAX_ROWS", "more than")]
)
def test_a_trace_has_a_largest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, says: str
) -> None:
    monkeypatch.setattr(trace_module, limit, 1)
    with pytest.raises(DataError, match=says):
        read(tmp_path, f"{HEADER}\n{GOOD}\n{GOOD}\n")


def test_a_killed_run_loses_its_last_line_only(tmp_path: Path) -> None:
    whole = f"{HEADER}\n{GOOD}\n"
    events = read(tmp_path, whole)
    assert read(tmp_path, whole + GOOD[:9], may_be_cut=True) == events
    with pytest.raises(DataError, match="values for 9 columns"):
        read(tmp_path, whole + GOOD[:9])


def test_a_record_that_goes_on_has_one_header(tmp_path: Path) -> None:
    for received in (1.0, 2.0):
        with TraceWriter(tmp_path / "t.csv") as writer:
            writer.write(row(received=received))
    events = read_trace(tmp_path / "t.csv")
    assert [event.received_seconds for event in events] == [1.0, 2.0]


def test_a_row_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "t.csv") as writer:
        writer.write(row())
        assert read_trace(tmp_path / "t.csv") == [row()]


def test_a_text_that_a_trace_may_not_hold_is_made_readable(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.csv", [replace(row(), group='a\r\n,"b\x00' + "x" * 999)])
    (event,) = read_trace(tmp_path / "t.csv")
    assert event.group == 'a??,"b?' + "x" * 93


def test_replacing_a_trace_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "t.csv.new").write_text("half of an earlier try")
    write_trace(tmp_path / "t.csv", [row(), replace(row(), device=1)])
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert len(read_trace(tmp_path / "t.csv")) == 2


def test_the_required_columns_are_the_documented_ones() -> None:
    assert ",".join(REQUIRED) == HEADER
