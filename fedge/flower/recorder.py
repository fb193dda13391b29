"""A layer that records a federation as a trace, to be replayed by the simulator.

It stands next to the base grid, changes nothing, and appends one row per reply. What it
cannot see it leaves at 0 (energy) or counts as computing: the time between sending and
receiving, unless the reply's metrics say how long the device computed.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedge.fleet.event import Event, Outcome
from fedge.fleet.trace import TraceWriter
from fedge.flower.fleet_trips import phase_of
from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.partial import Reduction, nodes_of, payload_of
from fedge.flower.records import payload_bytes

# A device that is not there, or whose answer did not come.
_AWAY = frozenset({ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE})


class Recorder(GridLayer):
    """Writes what happens to each message into a CSV trace; close it at the end.

    Guarantee: rows are in the order of time, also if the computer's clock is set back;
    a row is with the system before its reply is handed on.
    """

    def __init__(
        self,
        inner: Grid,
        path: Path,
        *,
        compute_seconds_key: str = "compute-seconds",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Record into a file.

        Args:
            inner: the base grid.
            path: a CSV file; goes on with it if it is there.
            compute_seconds_key: the metric in which a reply says how long its device
                computed.
            clock: seconds that never go back.
        """
        super().__init__(inner)
        self._writer = TraceWriter(path)
        self._key = compute_seconds_key
        self._clock = clock
        self._epoch = time.time() - clock()
        self._place_by_node: dict[int, int] = {}
        self._pushed: dict[str, tuple[Message, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield the replies as they arrive, recording; partial sums as their parts.

        At the end of the request, or when nobody wants more, those that did not answer
        are recorded too. A node is asked once in a request.
        """
        waiting: dict[int, tuple[Message, float]] = {}
        sent = (self._note(message, waiting) for message in messages)
        silent = Outcome.surplus
        try:
            for reply in stream_replies(
                self.inner, sent, timeout=timeout, reduction=reduction
            ):
                for node in nodes_of(reply):
                    if node in waiting:
                        self._record(*waiting.pop(node), reply)
                yield reply
            silent = Outcome.late
        finally:
            for message, sent_seconds in waiting.values():
                self._record(message, sent_seconds, None, silent)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push through the wrapped grid; replies are recorded when they are pulled."""
        sent = list(messages)
        now = self._now()
        ids = list(self.inner.push_messages(sent))
        self._pushed.update(
            (message_id, (message, now))
            for message_id, message in zip(ids, sent, strict=True)
        )
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull through the wrapped grid, recording."""
        replies = list(self.inner.pull_messages(message_ids))
        for reply in replies:
            found = self._pushed.pop(reply.metadata.reply_to_message_id, None)
            if found is not None:
                self._record(*found, reply)
        return replies

    def _note(
        self, message: Message, waiting: dict[int, tuple[Message, float]]
    ) -> Message:
        waiting[message.metadata.dst_node_id] = (message, self._now())
        return message

    def _now(self) -> float:
        return self._epoch + self._clock()

    def _record(
        self,
        message: Message,
        sent_seconds: float,
        reply: Message | None,
        silent: Outcome = Outcome.late,
    ) -> None:
        now = self._now()
        outcome = silent if reply is None else _outcome_of(reply)
        is_ok = reply is not None and outcome is Outcome.ok
        num_bytes = payload_of(reply) // len(nodes_of(reply)) if reply else 0
        seconds = now - sent_seconds
        computed = self._compute_seconds(reply, seconds) if is_ok else 0.0
        self._writer.write(
            Event(
                device=self._place_of(message.metadata.dst_node_id),
                phase=phase_of(message),
                sent_seconds=sent_seconds,
                received_seconds=now,
                bytes_down=payload_bytes(message.content),
                bytes_up=num_bytes,
                compute_seconds=computed,
                energy_joules=0.0,
                outcome=outcome,
                group=message.metadata.group_id,
                clock_seconds=now,
            )
        )

    def _place_of(self, node: int) -> int:
        """Return the device's place; ids without an order count as they are seen."""
        nodes = self.inner.get_node_ids()
        if isinstance(nodes, range) and node in nodes:
            return nodes.index(node)
        return self._place_by_node.setdefault(node, len(self._place_by_node))

    def _compute_seconds(self, reply: Message | None, seconds: float) -> float:
        if reply is None or len(nodes_of(reply)) > 1:
            return seconds
        for record in reply.content.metric_records.values():
            told = record.get(self._key)
            if isinstance(told, int | float) and 0.0 <= told <= seconds:
                return float(told)
        return seconds


def _outcome_of(reply: Message) -> Outcome:
    if not reply.has_error():
        return Outcome.ok
    return Outcome.offline if reply.error.code in _AWAY else Outcome.failed
