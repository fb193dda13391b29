"""What `fedge simulate` shows of a run: one living line on a terminal, one at the end.

The living line needs rich, which devices do not have; without it there is only the end.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TextIO

from fedge.flower.progress import Tally

_LOOKS_PER_SECOND = 4


def line_of(tally: Tally) -> str:
    """Return what was done so far, in one line."""
    failed = f", {tally.failed} failed" if tally.failed else ""
    return (
        f"{tally.answered} answers of clients{failed}, "
        f"{_seconds(tally.seconds)}, {tally.per_second:.1f} answers/s, "
        f"{tally.memory_bytes / 1e6:.0f} MB"
    )


@contextmanager
def shown(tally: Callable[[], Tally]) -> Iterator[None]:
    """Show what `tally` returns while a block runs, if stderr is a terminal."""
    if not sys.stderr.isatty() or find_spec("rich") is None:
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots")

    def line() -> Spinner:
        now = tally()
        waiting = now.asked - now.answered - now.failed
        spinner.update(text=f"{line_of(now)}, {waiting} at work")
        return spinner

    with (
        Live(
            get_renderable=line,
            console=Console(stderr=True),
            refresh_per_second=_LOOKS_PER_SECOND,
            transient=True,
            # What goes into a file or a pipe must not come out here.
            redirect_stdout=sys.stdout.isatty(),
        ),
        _logs_above_the_line(),
    ):
        yield


@contextmanager
def _logs_above_the_line() -> Iterator[None]:
    """Let log handlers that write to stderr write to what it is now."""
    moved: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
    for name in ("", "flwr", "fedge"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in (
                sys.__stderr__,
                sys.__stdout__,
            ):
                moved.append((handler, handler.stream))
                handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)


def _seconds(seconds: float) -> str:
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"
