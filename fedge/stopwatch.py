"""Where the time goes: seconds by name.

    with measure("training"):
        ...

Code measures itself wherever that is of interest. Unless a stopwatch runs (`timed_by`)
that does nothing and costs 0.2 microseconds; with one, 0.5. What is measured inside
something else is taken off it, so the seconds of all names add up to what was measured.

Never `yield` inside a measured block: whoever goes on meanwhile would be counted there
(`measure_each` is for iterators).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent on what.

    Attributes:
        seconds_by_name: wall time, without what was measured inside.
        cpu_seconds: CPU time in all, whether measured or not.
    """

    seconds_by_name: Mapping[str, float]
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Lap:
    """What happened between two looks at a stopwatch.

    Attributes:
        wall_seconds: between the two looks.
        here: in this process.
        workers: in its workers, added up over them.
        num_workers: how many there are.
    """

    wall_seconds: float
    here: Spent
    workers: Spent
    num_workers: int


class Stopwatch:
    """Seconds by name.

    Guarantee: each moment counts for the innermost name that is measured, and for no
    other; so a lap's seconds add up to its wall time less what nothing measured.

    Args:
        clock: seconds that never go back.
        cpu_clock: CPU seconds of this process.
    """

    def __init__(
        self, clock: Clock = time.perf_counter, cpu_clock: Clock = time.process_time
    ) -> None:
        self.num_workers = 0
        self._clock, self._cpu_clock = clock, cpu_clock
        self._running: list[str] = []
        self._counted_until = clock()
        self._begin_lap()

    def begin(self, name: str) -> None:
        """Count for this name from now on."""
        self._count()
        self._running.append(name)

    def end(self) -> None:
        """Count for what was measured before."""
        self._count()
        self._running.pop()

    def add_workers(
        self, seconds_by_name: Mapping[str, float], cpu_seconds: float
    ) -> None:
        """Note what a worker has spent."""
        for name, seconds in seconds_by_name.items():
            self._of_workers[name] = self._of_workers.get(name, 0.0) + seconds
        self._cpu_of_workers += cpu_seconds

    def take(self) -> Lap:
        """End a lap and return it; what runs is split between this one and the next."""
        self._count()
        lap = Lap(
            self._counted_until - self._began,
            Spent(self._seconds, self._cpu_clock() - self._cpu_began),
            Spent(self._of_workers, self._cpu_of_workers),
            self.num_workers,
        )
        self._begin_lap()
        return lap

    def _begin_lap(self) -> None:
        self._seconds: dict[str, float] = {}
        self._of_workers: dict[str, float] = {}
        self._cpu_of_workers = 0.0
        self._began, self._cpu_began = self._counted_until, self._cpu_clock()

    def _count(self) -> None:
        now = self._clock()
        if self._running:
            name = self._running[-1]
            old = self._seconds.get(name, 0.0)
            self._seconds[name] = old + now - self._counted_until
        self._counted_until = now


class _Measurement:
    """A block of code that is measured."""

    __slots__ = ("_name", "_watch")

    def __init__(self, watch: Stopwatch, name: str) -> None:
        self._watch, self._name = watch, name

    def __enter__(self) -> None:
        self._watch.begin(self._name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch.end()


_NOTHING = nullcontext()
# Not a global: two runs in one process must not measure each other, and threads that
# are none of ours are not measured at all.
_WATCH: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


def current_watch() -> Stopwatch | None:
    """Return the stopwatch that runs; None if none does."""
    return _WATCH.get()


def measure(name: str) -> AbstractContextManager[None]:
    """Count a block's seconds for this name, if a stopwatch runs."""
    watch = _WATCH.get()
    return _NOTHING if watch is None else _Measurement(watch, name)


def measure_each(name: str, items: Iterable[T]) -> Iterator[T]:
    """Yield the items; count the time that making them takes for this name."""
    iterator, nothing = iter(items), object()
    while True:
        with measure(name):
            item = next(iterator, nothing)
        if item is nothing:
            return
        yield item  # type: ignore[misc]  # not `nothing`


@contextmanager
def timed_by(watch: Stopwatch | None) -> Iterator[None]:
    """Let this stopwatch run while a block does; None lets none run."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)
