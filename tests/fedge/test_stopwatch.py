from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.stopwatch import (
    Stopwatch,
    current_watch,
    measure,
    measure_each,
    timed_by,
)

# A program: time passes (an int), a lap is taken ("lap"), or a block is measured.
Program = list[object]
PROGRAMS = st.recursive(
    st.lists(st.one_of(st.integers(1, 9), st.just("lap")), max_size=4),
    lambda inner: st.lists(
        st.one_of(
            st.integers(1, 9),
            st.just("lap"),
            st.tuples(st.sampled_from(["a", "b", "c"]), inner),
        ),
        max_size=5,
    ),
    max_leaves=20,
)


@dataclass
class World:
    """A clock that the program moves, and an obvious account of each of its moments."""

    now: float = 0.0
    watch: Stopwatch = field(init=False)
    laps: list[dict[str, float]] = field(default_factory=list)
    expected: list[dict[str, float]] = field(default_factory=lambda: [{}])

    def __post_init__(self) -> None:
        self.watch = Stopwatch(lambda: self.now, lambda: self.now)

    def run(self, program: Program, innermost: str | None = None) -> None:
        for part in program:
            if isinstance(part, int):
                self.pass_time(part, innermost)
            elif isinstance(part, tuple):
                with measure(part[0]):
                    self.run(part[1], part[0])
            else:
                self.laps.append(dict(self.watch.take().here.seconds_by_name))
                self.expected.append({})

    def pass_time(self, seconds: float, name: str | None) -> None:
        self.now += seconds
        if name is not None:
            account = self.expected[-1]
            account[name] = account.get(name, 0.0) + seconds


def positive(seconds_by_name: dict[str, float]) -> dict[str, float]:
    return {name: seconds for name, seconds in seconds_by_name.items() if seconds}


@given(PROGRAMS)
def test_each_moment_counts_for_the_innermost_name_and_for_its_lap(
    program: Program,
) -> None:
    world = World()
    with timed_by(world.watch):
        world.run([*program, "lap"])
    assert [positive(lap) for lap in world.laps] == world.expected[:-1]


@given(PROGRAMS)
def test_what_was_measured_is_never_more_than_the_wall_time(program: Program) -> None:
    world = World()
    with timed_by(world.watch):
        world.run([part for part in program if part != "lap"])
    lap = world.watch.take()
    assert sum(lap.here.seconds_by_name.values()) <= lap.wall_seconds
    assert lap.wall_seconds <= world.now


def test_a_block_that_raises_ends_its_measurement() -> None:
    world = World()
    with timed_by(world.watch):
        with pytest.raises(ValueError, match="broken"):
            take_a_second_and_fail(world)
        world.now += 1.0
    assert world.watch.take().here.seconds_by_name == {"a": 1.0}


def take_a_second_and_fail(world: World) -> None:
    with measure("a"):
        world.now += 1.0
        raise ValueError("broken")


def test_only_the_making_of_items_is_measured() -> None:
    world = World()

    def make() -> Iterator[int]:
        for item in range(3):
            world.now += 1.0
            yield item

    with timed_by(world.watch):
        for _ in measure_each("making", make()):
            world.now += 10.0
    assert world.watch.take().here.seconds_by_name == {"making": 3.0}


def test_without_a_stopwatch_nothing_is_measured() -> None:
    world = World()
    with timed_by(world.watch), timed_by(None):
        assert current_watch() is None
        with measure("a"):
            world.now += 1.0
    assert world.watch.take().here.seconds_by_name == {}


def test_a_lap_begins_where_the_last_one_ended() -> None:
    world = World()
    world.now = 2.0
    assert world.watch.take().wall_seconds == 2.0
    world.now = 5.0
    lap = world.watch.take()
    assert (lap.wall_seconds, lap.here.cpu_seconds) == (3.0, 3.0)


def test_what_workers_spent_is_added_up_apart() -> None:
    watch = World().watch
    watch.add_workers({"training": 1.0, "sending": 2.0}, 1.5)
    watch.add_workers({"training": 4.0}, 2.5)
    lap = watch.take()
    assert lap.workers.seconds_by_name == {"training": 5.0, "sending": 2.0}
    assert lap.workers.cpu_seconds == 4.0
    assert lap.here.seconds_by_name == {}
    assert watch.take().workers.seconds_by_name == {}
