"""A layer that counts what a run of any app has done so far, for whoever shows it.

How many rounds a foreign app will make is not known, so there is no share of the whole:
only what was asked, answered and failed, how long it took, and the memory it needs.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]  # ships no types
from flwr.app import Message
from flwr.serverapp import Grid

from fedge.errors import TransportError
from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.partial import Reduction, nodes_of

# Of the time may go into looking at the memory; a look takes some milliseconds for
# each process.
_MEMORY_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Tally:
    """What a run has done so far.

    Attributes:
        asked: messages sent to clients.
        answered: replies, those inside partial sums too.
        failed: error replies; not among the answered.
        seconds: since the layer was made.
        memory_bytes: of this process and its workers, shared pages once; the most that
            was seen.
    """

    asked: int
    answered: int
    failed: int
    seconds: float
    memory_bytes: int

    @property
    def per_second(self) -> float:
        """Clients that answered, per second."""
        return self.answered / self.seconds if self.seconds > 0.0 else 0.0


class Progress(GridLayer):
    """Counts everything that passes, and can stop it; changes nothing.

    Guarantee: asking for the tally is cheap and can be done from any thread.
    """

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self._asked = self._answered = self._failed = 0
        self._started = time.monotonic()
        self._memory_bytes = 0
        self._next_look = float("-inf")
        self._is_stopped = False

    def stop(self) -> None:
        """Let nothing pass from now on: whoever asks, in any thread, gets an error.

        A legacy server waits for all its threads, also when it is interrupted.
        """
        self._is_stopped = True

    def tally(self) -> Tally:
        """Return the counts up to now."""
        self._measure()
        return Tally(
            self._asked,
            self._answered,
            self._failed,
            time.monotonic() - self._started,
            self._memory_bytes,
        )

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield the replies, or partial sums of them, as they arrive, counting."""
        counted = (self._sent(message) for message in messages)
        for reply in stream_replies(
            self.inner, counted, timeout=timeout, reduction=reduction
        ):
            yield self._received(reply)
        self._measure()  # the end of a request is when memory is at its most

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push through the wrapped grid, counting."""
        return self.inner.push_messages(self._sent(message) for message in messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull through the wrapped grid, counting."""
        replies = [self._received(m) for m in self.inner.pull_messages(message_ids)]
        self._measure()
        return replies

    def _sent(self, message: Message) -> Message:
        self._check_running()
        self._asked += 1
        return message

    def _received(self, reply: Message) -> Message:
        self._check_running()
        if reply.has_error():
            self._failed += 1
        else:
            self._answered += len(nodes_of(reply))
        return reply

    def _check_running(self) -> None:
        if self._is_stopped:
            raise TransportError("the run was stopped")

    def _measure(self) -> None:
        """Look at the memory unless that was done a short while ago."""
        began = time.monotonic()
        if began >= self._next_look:
            self._memory_bytes = max(self._memory_bytes, memory_of_all())
            now = time.monotonic()
            self._next_look = now + (now - began) / _MEMORY_SHARE


def memory_of_all() -> int:
    """Return the memory of this process and all below it, shared pages once, bytes."""
    this = psutil.Process(os.getpid())
    return sum(_memory_of(process) for process in [this, *this.children(True)])


def _memory_of(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
    except psutil.Error:  # it ended meanwhile, or belongs to somebody else
        return 0
    return int(getattr(full, "pss", full.uss))
