"""A layer that counts what crosses the wire: messages, bytes and seconds per phase.

It stands next to the base Grid, below the sum: above it one synthetic reply would be
all there is to count. A phase is a message type ("train", "query.describe", ...).
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from flwr.app import Message
from flwr.serverapp import Grid

from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.records import payload_bytes


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one phase cost so far.

    Attributes:
        messages: messages sent.
        replies: replies with content.
        failures: error replies.
        bytes_down: payload sent to devices, bytes.
        bytes_up: payload of the replies, bytes.
        seconds: from the first message sent to the last reply received.
    """

    messages: int = 0
    replies: int = 0
    failures: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0


class Telemetry(GridLayer):
    """Counts everything that passes; changes nothing."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self._traffic_by_phase: dict[str, Traffic] = {}

    def snapshot(self) -> Mapping[str, Traffic]:
        """Return the counts of each phase up to now."""
        return dict(self._traffic_by_phase)

    def stream(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the replies as they arrive, counting."""
        counted = (self._sent(message) for message in messages)
        last = time.perf_counter()
        for reply in stream_replies(self.inner, counted, timeout=timeout):
            now = time.perf_counter()
            self._received(reply, now - last)
            yield reply
            last = time.perf_counter()

    def _sent(self, message: Message) -> Message:
        phase = message.metadata.message_type
        old = self._traffic_by_phase.get(phase, Traffic())
        self._traffic_by_phase[phase] = replace(
            old,
            messages=old.messages + 1,
            bytes_down=old.bytes_down + payload_bytes(message.content),
        )
        return message

    def _received(self, reply: Message, seconds: float) -> None:
        phase = reply.metadata.message_type
        old = self._traffic_by_phase.get(phase, Traffic())
        failed = reply.has_error()
        size = 0 if failed else payload_bytes(reply.content)
        self._traffic_by_phase[phase] = replace(
            old,
            replies=old.replies + (not failed),
            failures=old.failures + failed,
            bytes_up=old.bytes_up + size,
            seconds=old.seconds + seconds,
        )
