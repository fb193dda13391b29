"""A progress display on the terminal: rounds, clients, score, and when it will end.

The log gets one line per round either way; without a terminal that is all.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from fedge.flower.progress import memory_of_all
from server.events import LogObserver, clients_per_second
from server.journal import RoundRecord

Clock = Callable[[], float]

_ROUNDS_REMEMBERED = 10  # the pace may change: with pruning, or on a busy machine
_REDRAW_SECONDS = 0.1
_MEMORY_SECONDS = 1.0
_MEMORY_SHARE = 0.01  # of the time


class Pace:
    """How fast a run goes, and how long it will take.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._round_started = clock()
        self._seconds: deque[float] = deque(maxlen=_ROUNDS_REMEMBERED)
        self._rounds_left: int | None = None
        self._answered = self._asked = 0

    def start(self, num_rounds: int) -> None:
        """Begin with so many rounds to go."""
        self._rounds_left, self._round_started = num_rounds, self._clock()

    def answer(self, answered: int, asked: int) -> None:
        """Note how far the round is."""
        self._answered, self._asked = answered, asked

    def finish_round(self) -> None:
        """Note that a round is over."""
        now = self._clock()
        self._seconds.append(now - self._round_started)
        self._round_started, self._rounds_left = now, (self._rounds_left or 1) - 1
        self._answered = self._asked = 0

    @property
    def clients_per_second(self) -> float:
        """Clients that have answered in this round, per second."""
        elapsed = self._clock() - self._round_started
        return self._answered / elapsed if elapsed > 0.0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last round is over; None if nobody can know yet.

        The mean of the last rounds; in the first one, from how far it is.
        """
        if not self._rounds_left:
            return None if self._rounds_left is None else 0.0
        elapsed = self._clock() - self._round_started
        if self._seconds:
            each = sum(self._seconds) / len(self._seconds)
        elif self._answered and self._asked:
            each = elapsed * self._asked / self._answered
        else:
            return None
        # This round may take longer than any before.
        return max(0.0, each - elapsed) + each * (self._rounds_left - 1)


class MemoryWatch:
    """The memory of this process and its workers, looked at now and then.

    Guarantee: looked at at most once a second, and for at most 1 % of the time.

    Args:
        look: returns the memory in bytes, shared pages once.
        clock: seconds that never go back.
    """

    def __init__(
        self, look: Callable[[], int] = memory_of_all, clock: Clock = time.monotonic
    ) -> None:
        self._look, self._clock = look, clock
        self._next_look = float("-inf")
        self._bytes = 0

    def num_bytes(self) -> int:
        """Return the memory when it was last looked at, which may be now."""
        started = self._clock()
        if started >= self._next_look:
            self._bytes = self._look()
            cost = self._clock() - started
            self._next_look = started + max(_MEMORY_SECONDS, cost / _MEMORY_SHARE)
        return self._bytes


class ProgressObserver:
    """Shows a run on the terminal and writes its lines to the log as well."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console()
        self._is_shown = console.is_terminal
        self._log = LogObserver()
        self._pace, self._memory = Pace(), MemoryWatch()
        self._score = ""
        self._next_redraw = float("-inf")
        self._progress = _TwoLines(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _SecondsLeft(self._pace),
            console=console,
            disable=not self._is_shown,
        )
        self._task = self._progress.add_task("training", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """Set the bar's length and where it begins."""
        self._log.run_started(first_round=first_round, num_rounds=num_rounds)
        self._pace.start(num_rounds - first_round)
        self._progress.update(self._task, total=num_rounds, completed=first_round)

    def clients_answered(self, answered: int, asked: int) -> None:
        """Show how far the round is; it may be told very often.

        Args:
            answered: clients that have answered the present request.
            asked: clients that were asked; 0: not known.
        """
        self._pace.answer(answered, asked)
        now = time.monotonic()
        if self._is_shown and now >= self._next_redraw:
            self._next_redraw = now + _REDRAW_SECONDS
            of_asked = f" of {asked}" if asked else ""
            speed = self._pace.clients_per_second
            self._note(f"{answered}{of_asked} clients  {speed:.1f}/s")

    def round_finished(self, record: RoundRecord) -> None:
        """Move the bar on by one round."""
        self._log.round_finished(record)
        self._pace.finish_round()
        if record.score == record.score:
            self._score = f"score {record.score:.4f}"
        if self._is_shown:
            speed = f"{clients_per_second(record):.1f} clients/s"
            self._note(f"{speed}  loss {record.train_loss:.3f}")
            self._progress.advance(self._task)

    def stage_started(self, stage: str) -> None:
        """Say what goes on after the training."""
        self._log.stage_started(stage)
        self._progress.update(self._task, description=stage)

    def refresh(self) -> None:
        """Draw now; otherwise it is drawn ten times a second."""
        self._progress.refresh()

    def _note(self, text: str) -> None:
        memory = f"{self._memory.num_bytes() / 1e6:.0f} MB"
        note = "  ".join(part for part in (text, self._score, memory) if part)
        self._progress.second_line = note


class _TwoLines(Progress):
    """A bar, and below it what does not fit beside it."""

    second_line = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.second_line, no_wrap=True, overflow="ellipsis")


class _SecondsLeft(ProgressColumn):
    """When the last round will be over."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        seconds = self._pace.seconds_left
        return Text("ETA " + ("-:--:--" if seconds is None else clock_text(seconds)))


def clock_text(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
