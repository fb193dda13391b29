import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.fleet import VirtualClock


@given(st.lists(st.integers(0, 5)))
def test_events_come_by_time_and_then_in_the_order_they_were_scheduled(
    times: list[int],
) -> None:
    clock: VirtualClock[tuple[int, int]] = VirtualClock()
    for number, at in enumerate(times):
        clock.schedule(float(at), (at, number))
    popped = [clock.pop() for _ in range(len(clock))]
    assert popped == sorted((at, number) for number, at in enumerate(times))


def test_the_clock_stands_at_the_event_it_came_to() -> None:
    clock: VirtualClock[str] = VirtualClock(2.0)
    clock.schedule(7.0, "later")
    clock.schedule(3.0, "sooner")
    assert clock.peek_seconds() == 3.0
    assert clock.pop() == "sooner"
    assert clock.now_seconds == 3.0
    assert len(clock) == 1


def test_the_clock_never_goes_back() -> None:
    clock: VirtualClock[str] = VirtualClock(5.0)
    clock.advance(1.0)
    clock.schedule(2.0, "in the past")
    assert clock.pop() == "in the past"
    assert clock.now_seconds == 5.0


def test_an_empty_clock_has_nothing_to_come() -> None:
    clock: VirtualClock[str] = VirtualClock()
    assert clock.peek_seconds() == math.inf
    with pytest.raises(IndexError):
        clock.pop()


@pytest.mark.parametrize("time", [math.nan, math.inf])
def test_a_time_is_finite(time: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        VirtualClock(0.0).advance(time)
