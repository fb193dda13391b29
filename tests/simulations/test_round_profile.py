import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from server.profile import IDLE, OTHER, Share
from simulations.round_profile import (
    draw_profile,
    profile_table,
    report_profile,
    sections_of,
    sum_by_name,
)

PNG = b"\x89PNG"
SECONDS = st.dictionaries(
    st.sampled_from(["sending", "waiting", "journal", OTHER]), st.floats(0.0, 100.0)
)


def share(
    round_index: int,
    coordinator: Mapping[str, float],
    workers: Mapping[str, float] | None = None,
) -> Share:
    return Share(
        name="round",
        round_index=round_index,
        clients=10,
        wall_seconds=sum(coordinator.values()),
        coordinator=coordinator,
        workers=workers or {},
        coordinator_cpu_seconds=0.5,
        workers_cpu_seconds=1.5,
        num_workers=2,
    )


def text_of(rounds: list[Share]) -> str:
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(profile_table(rounds))
    return capture.get()


@given(st.lists(SECONDS, min_size=1, max_size=5))
def test_the_rows_of_a_section_add_up_to_its_last(
    parts: list[dict[str, float]],
) -> None:
    rounds = [share(index, part, part) for index, part in enumerate(parts)]
    sections = sections_of(rounds)
    for section in sections:
        *rows, (_, total) = section
        assert sum(seconds for _, seconds in rows) == pytest.approx(total)
    wall = sum(one.wall_seconds for one in rounds)
    if wall:
        assert sections[0][-1][1] == pytest.approx(wall)


def test_the_table_gives_shares_and_means() -> None:
    rounds = [
        share(0, {"waiting": 3.0, OTHER: 1.0}, {"training": 5.0, IDLE: 3.0}),
        share(1, {"waiting": 3.0, OTHER: 1.0}, {"training": 7.0, IDLE: 1.0}),
    ]
    lines = {
        line.split("│")[1].strip(): line
        for line in text_of(rounds).splitlines()[4:-1]
        if "│" in line
    }
    assert lines["waiting"].split("│")[2:5] == [
        "  75.0% ",
        "      3000.00 ",
        "       300.000 ",
    ]
    assert " 75.0% " in lines["training"]
    assert "8000.00" in lines["2 workers, wall time added up"]
    assert " 25.0% " in lines["coordinator"]


def test_what_took_longest_comes_first_and_what_is_unknown_last() -> None:
    total = sum_by_name([{OTHER: 9.0, "a": 1.0}, {"b": 2.0, "a": 0.5, IDLE: 1.0}])
    assert list(total) == ["b", "a", OTHER, IDLE]
    assert total["a"] == 1.5


@pytest.mark.parametrize("num_rounds", [1, 250])
def test_the_picture_shows_any_number_of_rounds(
    tmp_path: Path, num_rounds: int
) -> None:
    spent = {"waiting": 1.0, OTHER: 0.1}
    rounds = [share(index, spent, {IDLE: 1.0}) for index in range(num_rounds)]
    draw_profile(rounds, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(PNG)


def test_a_run_without_a_profile_reports_none(tmp_path: Path) -> None:
    out = io.StringIO()
    report_profile(tmp_path, Console(file=out))
    assert out.getvalue() == ""
    assert list(tmp_path.iterdir()) == []
