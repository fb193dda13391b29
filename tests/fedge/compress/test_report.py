import json
from dataclasses import replace

import pytest

from fedge.compress.report import Candidate, CompressionReport

FLOAT = Candidate("float32", 200_000, 180_000, 0.98, 0.2, 0.0)
INT8 = Candidate("int8", 60_000, 40_000, 0.97, 0.1, 0.25)
REPORT = CompressionReport((FLOAT, INT8), "int8")


def test_ratio_and_drop_are_against_the_float32_file() -> None:
    assert REPORT.shipped is INT8
    assert REPORT.ratio == 5.0
    assert REPORT.accuracy_drop == pytest.approx(0.01)


def test_it_goes_through_json() -> None:
    plain = json.loads(json.dumps(REPORT.to_dict()))
    assert plain["chosen"] == "int8"
    assert [c["packed_bytes"] for c in plain["candidates"]] == [180_000, 40_000]
    assert plain["ratio"] == 5.0


def test_the_table_marks_the_shipped_model() -> None:
    head, first, second = REPORT.table().splitlines()
    assert head.split()[0] == "model"
    assert first.split()[:5] == ["float32", "0", "-", "200.0", "180.0"]
    assert second.split() == [
        ">",
        "int8",
        "0",
        "-",
        "60.0",
        "40.0",
        "0.9700",
        "0.100",
        "25.0%",
    ]


def test_a_row_says_which_budgets_are_exceeded() -> None:
    over = replace(INT8, exceeded=("compression.max_kilobytes: 40, at most 30",))
    row = CompressionReport((FLOAT, over), "float32").table().splitlines()[2]
    assert row.endswith("over compression.max_kilobytes: 40, at most 30")


def test_what_is_not_known_is_null_in_json() -> None:
    first = json.loads(json.dumps(REPORT.to_dict(), allow_nan=False))["candidates"][0]
    assert first["macs"] is None
    assert first["memory_mb"] is None


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [((FLOAT,), "int8"), ((FLOAT, FLOAT), "float32"), ((), "")],
)
def test_a_report_without_one_clear_choice_is_refused(
    candidates: tuple[Candidate, ...], chosen: str
) -> None:
    with pytest.raises(ValueError, match="chosen"):
        CompressionReport(candidates, chosen)
