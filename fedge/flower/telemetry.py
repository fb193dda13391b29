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
from fedge.flower.partial import Reduction, nodes_of, payload_of
from fedge.flower.records import payload_bytes
from fedge.stopwatch import measure_each


@dataclass(slots=True)  # it grows with every message
class Traffic:
    """What one phase cost so far.

    Attributes:
        messages: messages sent.
        replies: replies with content, those inside partial sums too.
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
        return {name: replace(t) for name, t in self._traffic_by_phase.items()}

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield the replies, or partial sums of them, as they arrive, counting."""
        replies = stream_replies(
            self.inner, self._sent(messages), timeout=timeout, reduction=reduction
        )
        last = time.perf_counter()
        for reply in measure_each("grid", replies):
            now = time.perf_counter()
            self._received(reply, now - last)
            yield reply
            last = time.perf_counter()

    def _sent(self, messages: Iterable[Message]) -> Iterator[Message]:
        counted, num_bytes = None, 0
        for message in messages:
            if message.content is not counted:  # a broadcast has one for all
                counted, num_bytes = message.content, payload_bytes(message.content)
            traffic = self._traffic_of(message)
            traffic.messages += 1
            traffic.bytes_down += num_bytes
            yield message

    def _received(self, reply: Message, seconds: float) -> None:
        traffic = self._traffic_of(reply)
        if reply.has_error():
            traffic.failures += 1
        else:
            traffic.replies += len(nodes_of(reply))
        traffic.bytes_up += payload_of(reply)
        traffic.seconds += seconds

    def _traffic_of(self, message: Message) -> Traffic:
        phase = message.metadata.message_type
        found = self._traffic_by_phase.get(phase)
        if found is None:
            found = self._traffic_by_phase[phase] = Traffic()
        return found
