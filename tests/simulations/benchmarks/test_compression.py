"""The table in the documentation is renewed row by row."""

from pathlib import Path

import pytest

from simulations.benchmarks.compression import update

KEYS = (
    "dense_kb", "sent_kb", "ratio", "dense_accuracy", "accuracy", "speedup_b1",
    "speedup_b32", "speedup_vs_eager_b1", "speedup_vs_eager_b32", "publish_seconds",
)  # fmt: skip


def figures(name: str, value: float) -> dict[str, float]:
    return {f"{name}_{key}": value for key in KEYS}


def test_rows_that_were_not_measured_stay(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    path.write_text("one\n<!-- figures -->\n<!-- end of figures -->\ntwo\n")
    update(path, figures("har_cnn1d", 3.0) | figures("digits_cnn", 1.0))
    update(path, figures("digits_mobilenet", 2.0) | {"qat_gap_closed": 1.0})
    update(path, figures("digits_cnn", 4.0))
    lines = path.read_text().splitlines()
    assert lines[:2] == ["one", "<!-- figures -->"]
    assert lines[-2:] == ["<!-- end of figures -->", "two"]
    rows = [line.split(" | ") for line in lines[4:-2]]
    assert [(row[0], row[3]) for row in rows] == [
        ("| CNN on digits", "4.0"),
        ("| MobileNet-style on digits", "2.0"),
        ("| 1-D CNN on UCI HAR", "3.0"),
    ]


def test_a_file_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.md"
    path.write_text("<!-- figures -->\n")
    with pytest.raises(SystemExit, match="has no <!-- figures -->"):
        update(path, figures("digits_cnn", 1.0))
    assert path.read_text() == "<!-- figures -->\n"
