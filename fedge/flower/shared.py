"""A layer that lets several threads of a server app use one grid.

Flower's legacy servers ask each client from a thread of its own. A grid of ours runs
one request at a time, so what other threads ask meanwhile is gathered and becomes the
next request: its clients still run side by side.
"""

import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.serverapp import Grid

from fedge.flower.layer import GridLayer
from fedge.flower.partial import Reduction
from fedge.flower.reply_lists import ReplyLists


@dataclass(slots=True)
class _Request:
    """What one thread waits for."""

    messages: Sequence[Message]
    replies: list[Message] = field(default_factory=list)
    is_served: bool = False
    error: BaseException | None = None


class SharedGrid(GridLayer):
    """Hands requests of many threads to the wrapped grid, one after the other.

    Guarantee: every thread gets the replies to its own messages, as if it were alone.
    """

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self._turn = threading.RLock()  # a thread may ask while it reads a stream
        self._waiting: deque[_Request] = deque()  # its methods are atomic
        self._lists = ReplyLists()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the replies; one with a timeout is never sent with those of others."""
        asker = sys._getframe(1)
        self._lists.let_go(asker)
        return self._lists.make(self._replies(messages, timeout), asker)

    def _replies(
        self, messages: Iterable[Message], timeout: float | None
    ) -> Iterable[Message]:
        if timeout is not None:
            return self.stream(messages, timeout=timeout)
        request = _Request(list(messages))
        self._waiting.append(request)
        with self._turn:
            if not request.is_served:  # by the thread before us, with its own
                self._serve(
                    [self._waiting.popleft() for _ in range(len(self._waiting))]
                )
        if request.error is not None:
            raise request.error
        return request.replies

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield the replies; other threads wait until the last one is taken."""
        with self._turn:
            yield from super().stream(messages, timeout=timeout, reduction=reduction)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull through the wrapped grid when it is free."""
        with self._turn:
            return list(super().pull_messages(message_ids))

    def _serve(self, requests: Sequence[_Request]) -> None:
        sent = [message for request in requests for message in request.messages]
        try:
            replies = list(super().stream(sent))
        except BaseException as exc:  # whoever waits has to hear of it, then it goes on
            for request in requests:
                request.is_served, request.error = True, exc
            return
        owner = {m.metadata.message_id: r for r in requests for m in r.messages}
        for reply in replies:
            owner[reply.metadata.reply_to_message_id].replies.append(reply)
        for request in requests:
            request.is_served = True
