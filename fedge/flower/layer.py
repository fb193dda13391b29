"""What all Grid layers share: they wrap a Grid and pass on what they do not change.

A layer sees replies one by one, as they arrive (`stream`), so it needs memory for one
reply and not for the cohort. Flower's own grids know only push and pull; they are
polled.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedge.flower.partial import Reduction, is_partial

logger = logging.getLogger(__name__)

# Flower's own grids wait 3 seconds between two looks; answers of small models arrive
# within milliseconds.
_POLL_SECONDS = 0.1


@runtime_checkable
class StreamingGrid(Protocol):
    """A grid that hands over each reply as soon as it is there."""

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Send the messages; yield replies until all are in or time is up.

        With a `reduction` some or all of the yielded messages may be partial sums.
        """


def stream_replies(
    grid: Grid,
    messages: Iterable[Message],
    *,
    timeout: float | None = None,
    reduction: Reduction | None = None,
) -> Iterator[Message]:
    """Send the messages through any grid and yield the replies as they arrive.

    Args:
        grid: any grid.
        messages: what to send.
        timeout: seconds after which no further reply is waited for; None waits for all.
        reduction: how a grid that can may add replies up before it hands them over.
    """
    if isinstance(grid, StreamingGrid):
        yield from grid.stream(messages, timeout=timeout, reduction=reduction)
        return
    deadline = None if timeout is None else time.monotonic() + timeout
    sent = list(messages)
    if not sent:
        return  # Flower's SuperLink answers an empty push with an error
    waiting = set(grid.push_messages(sent))
    while waiting:
        for reply in grid.pull_messages(waiting):
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if deadline is not None and time.monotonic() >= deadline:
            return
        if waiting:
            time.sleep(_POLL_SECONDS)


def answers_to(
    sent: Iterable[Message], replies: Iterable[Message]
) -> Iterator[Message]:
    """Pass on each node's first reply to the message it was sent, and partial sums.

    What answers an earlier message, answers twice or was not asked is dropped: whoever
    adds replies up must not meet it.

    Args:
        sent: to different nodes.
        replies: from a grid that was given these messages.
    """
    waiting = {message.metadata.dst_node_id: message for message in sent}
    for reply in replies:
        if is_partial(reply):
            yield reply
            continue
        metadata = reply.metadata
        asked = waiting.get(metadata.src_node_id)
        if asked and asked.metadata.message_id == metadata.reply_to_message_id:
            del waiting[metadata.src_node_id]
            yield reply
        else:
            logger.warning(
                "a reply of node %d was dropped: it answers nothing that is open",
                metadata.src_node_id,
            )


class GridLayer(Grid):
    """A Grid that wraps a Grid; a subclass changes `stream` or `send_and_receive`."""

    def __init__(self, inner: Grid) -> None:
        self.inner = inner

    def set_run(self, run: Run) -> None:
        """Set the run of the wrapped grid."""
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        """The wrapped grid's run."""
        return self.inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message, as the wrapped grid does."""
        return self.inner.create_message(
            content, message_type, dst_node_id, group_id, ttl
        )

    def get_node_ids(self) -> Iterable[int]:
        """Return the wrapped grid's nodes."""
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push through the wrapped grid, past this layer."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull through the wrapped grid, past this layer."""
        return self.inner.pull_messages(message_ids)

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield replies, or partial sums of them, as they arrive."""
        return stream_replies(
            self.inner, messages, timeout=timeout, reduction=reduction
        )

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send the messages and return the replies that came in time."""
        return list(self.stream(messages, timeout=timeout))
