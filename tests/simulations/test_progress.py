import io
import itertools
import logging
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from server.journal import RoundRecord
from simulations.progress import MemoryWatch, Pace, ProgressObserver, clock_text


@dataclass
class Clock:
    """A clock that is moved by hand."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def record(round_index: int, **changes: float) -> RoundRecord:
    values = {
        "round_index": round_index,
        "attempts": 1,
        "asked": 50,
        "answered": 48,
        "failed": 2,
        "examples": 100.0,
        "train_loss": 1.25,
        "loss": 1.5,
        "score": 0.75,
        "device_score": float("nan"),
        "learning_rate": 0.1,
        "sparsity": 0.0,
        "bytes_down": 1,
        "bytes_up": 1,
        "seconds": 4.0,
    }
    return RoundRecord(**{**values, **changes})  # type: ignore[arg-type]  # mixed


def test_nobody_knows_the_end_before_anything_was_done() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.seconds_left is None
    pace.start(10)
    clock.now = 5.0
    assert pace.seconds_left is None


def test_the_first_round_is_judged_by_its_clients() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(3)
    clock.now = 20.0
    pace.answer(10, 40)
    assert pace.clients_per_second == 0.5
    assert pace.seconds_left == pytest.approx(80.0 * 3 - 20.0)


def test_later_rounds_are_judged_by_those_before() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(4)
    for now in (10.0, 30.0):
        clock.now = now
        pace.finish_round()
    clock.now = 33.0
    assert pace.seconds_left == pytest.approx(15.0 * 2 - 3.0)
    clock.now = 60.0  # longer than any before: at least the other round is left
    assert pace.seconds_left == pytest.approx(15.0)


def test_after_the_last_round_nothing_is_left() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(1)
    clock.now = 10.0
    pace.finish_round()
    clock.now = 100.0
    assert pace.seconds_left == 0.0


@given(
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=300), st.floats(0.0001, 5.0)
)
def test_memory_is_looked_at_once_a_second_and_for_one_percent_of_the_time(
    waits: list[float], cost: float
) -> None:
    clock, looks = Clock(), list[float]()

    def look() -> int:
        looks.append(clock.now)
        clock.now += cost
        return 7

    memory = MemoryWatch(look, clock)
    for wait in waits:
        assert memory.num_bytes() == 7
        clock.now += wait
    gaps = [after - before for before, after in itertools.pairwise(looks)]
    assert all(gap >= max(1.0, 100 * cost) * (1 - 1e-9) for gap in gaps)


def test_without_a_terminal_only_the_log_has_a_line_per_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = io.StringIO()
    with (
        caplog.at_level(logging.INFO),
        ProgressObserver(Console(file=out, force_terminal=False)) as observer,
    ):
        observer.run_started(first_round=0, num_rounds=2)
        observer.clients_answered(10, 50)
        observer.round_finished(record(0))
        observer.round_finished(record(1, seconds=8.0))
    assert out.getvalue() == ""
    lines = [line for line in caplog.messages if line.startswith("round=")]
    assert lines[0].endswith("seconds=4.00 clients_per_second=12.0")
    assert lines[1].endswith("seconds=8.00 clients_per_second=6.0")


def test_on_a_terminal_a_long_round_shows_how_far_it_is() -> None:
    out = io.StringIO()
    with ProgressObserver(Console(file=out, force_terminal=True, width=100)) as shown:
        shown.run_started(first_round=0, num_rounds=2)
        shown.clients_answered(10, 50)
        shown.refresh()
        during = out.getvalue()
        shown.round_finished(record(0))
        shown.refresh()
    assert "10 of 50 clients" in during
    assert " MB" in during
    assert "12.0 clients/s  loss 1.250  score 0.7500" in out.getvalue()
    assert "ETA" in out.getvalue()


def test_a_resumed_run_counts_only_what_is_left() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.start(100 - 98)
    clock.now = 3.0
    pace.finish_round()
    assert pace.seconds_left == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (61.0, "0:01:01"), (360000.0, "100:00:00")]
)
def test_durations_are_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
