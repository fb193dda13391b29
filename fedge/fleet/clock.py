"""A clock that does not tick: it jumps from event to event.

Pure: nothing waits. Events of the same moment come in the order in which they were
scheduled, so that a run is the same each time.
"""

import heapq
import itertools
import math
from typing import Generic, TypeVar

T = TypeVar("T")


class VirtualClock(Generic[T]):
    """Virtual seconds, and what will happen at which of them.

    Guarantee: never goes back.

    Attributes:
        now_seconds: the present.
    """

    def __init__(self, start_seconds: float = 0.0) -> None:
        _check_time(start_seconds)
        self.now_seconds = start_seconds
        self._events: list[tuple[float, int, T]] = []
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._events)

    def schedule(self, at_seconds: float, event: T) -> None:
        """Add an event; one in the past happens now."""
        _check_time(at_seconds)
        heapq.heappush(self._events, (at_seconds, next(self._serial), event))

    def peek_seconds(self) -> float:
        """Return when the next event is; infinity if there is none."""
        return self._events[0][0] if self._events else math.inf

    def pop(self) -> T:
        """Move to the next event and return it.

        Raises:
            IndexError: there is none.
        """
        at_seconds, _, event = heapq.heappop(self._events)
        self.advance(at_seconds)
        return event

    def advance(self, to_seconds: float) -> None:
        """Move on to that moment; stay if it is in the past."""
        _check_time(to_seconds)
        self.now_seconds = max(self.now_seconds, to_seconds)


def _check_time(seconds: float) -> None:
    if not math.isfinite(seconds):
        raise ValueError(f"a time must be finite, got {seconds} seconds")
