"""What the grids over clients of our own share: numbered nodes, ids, push and pull.

A subclass runs clients (`_replies`); how messages are made, numbered and sorted out
before that is the same for all of them.
"""

import itertools
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedge.flower.client_runner import FIRST_NODE_ID
from fedge.flower.node_list import claim_task_identity
from fedge.flower.partial import Reduction, is_partial


class BaseGrid(Grid):
    """A Grid over `num_clients` virtual clients; client i has node id i + 2.

    Guarantee: replies come in the order of their messages, whoever runs the clients, so
    equal messages give equal replies in an equal order.

    Flower makes messages only for a known task, so creating one makes this process that
    task (run `run_id`, the server's node).

    Args:
        num_clients: virtual clients.
        run_id: the run.
    """

    def __init__(self, num_clients: int, run_id: int) -> None:
        self._num_clients = num_clients
        self._pushed: dict[str, Message] = {}
        self._serial = itertools.count(1)
        self.set_run(Run.create_empty(run_id))

    # -- what a subclass does ---------------------------------------------------------

    @abstractmethod
    def start(self) -> Self:
        """Start whoever runs the clients."""

    @abstractmethod
    def close(self) -> None:
        """End whoever runs the clients."""

    @abstractmethod
    def _replies(
        self,
        messages: Iterable[Message],
        deadline: float | None,
        reduction: Reduction | None,
    ) -> Iterator[Message]:
        """Run clients and yield their replies in the order of the messages.

        Args:
            messages: to nodes that may be unknown or have several.
            deadline: `time.monotonic()` after which nobody is waited for.
            reduction: how replies may be added up.
        """

    # -- what all have ----------------------------------------------------------------

    @property
    def num_clients(self) -> int:
        """Virtual clients."""
        return self._num_clients

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def set_run(self, run: Run) -> None:
        """Set the run, and make this process its server task."""
        self._run = run
        claim_task_identity(run.run_id)

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def get_node_ids(self) -> Sequence[int]:
        """Return the node ids, in the order of the clients."""
        return range(FIRST_NODE_ID, FIRST_NODE_ID + self.num_clients)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message to one node."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept the messages; their clients run when the replies are pulled."""
        accepted = [self._stamp(message) for message in messages]
        self._pushed.update((m.metadata.message_id, m) for m in accepted)
        return [message.metadata.message_id for message in accepted]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run the clients of these pushed messages and return their replies."""
        found = [i for i in dict.fromkeys(message_ids) if i in self._pushed]
        messages = [self._pushed.pop(message_id) for message_id in found]
        return [self._stamp(reply) for reply in self._replies(messages, None, None)]

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Run the clients and yield their replies in the order of the messages.

        Args:
            messages: what to send.
            timeout: no further client is started after so many seconds. One that runs
                is not interrupted; in a worker, its reply is not waited for.
            reduction: how workers may add replies up. Without workers it is left to
                the caller, and so it is if only some replies are wanted.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        stamped = (self._stamp(message) for message in messages)
        for reply in self._replies(stamped, deadline, reduction):
            yield self._stamp(reply)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the replies to the messages that were answered in time."""
        return list(self.stream(messages, timeout=timeout))

    def _stamp(self, message: Message) -> Message:
        # Flower's SuperLink gives a message its id in the same way: there is no setter.
        message.metadata.__dict__["_message_id"] = str(next(self._serial))
        return message

    def _sort_out(self, messages: Sequence[Message]) -> Iterator[Message]:
        """Yield an error reply for each message to an unknown node."""
        nodes = self.get_node_ids()
        for message in messages:
            if message.metadata.dst_node_id not in nodes:
                reason = f"node {message.metadata.dst_node_id} is not in this grid"
                error = Error(ErrorCode.NODE_UNAVAILABLE, reason)
                yield Message(error, reply_to=message)

    def _known(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages to nodes that there are."""
        nodes = self.get_node_ids()
        return [m for m in messages if m.metadata.dst_node_id in nodes]


def one_per_node(messages: Sequence[Message]) -> list[list[Message]]:
    """Split a request so that no part has two messages to one client."""
    parts: list[list[Message]] = []
    seen: dict[int, int] = {}
    for message in messages:
        node = message.metadata.dst_node_id
        place = seen[node] = seen.get(node, -1) + 1
        if place == len(parts):
            parts.append([])
        parts[place].append(message)
    return parts


def in_order_of(sent: Sequence[Message], replies: Sequence[Message]) -> list[Message]:
    """Return the replies in the order of the messages, partial sums last."""
    place_by_id = {m.metadata.message_id: place for place, m in enumerate(sent)}

    def place_of(reply: Message) -> int:
        if is_partial(reply):
            return len(sent)
        return place_by_id[reply.metadata.reply_to_message_id]

    return sorted(replies, key=place_of)


def reduction_for(
    messages: Sequence[Message], reduction: Reduction | None
) -> Reduction | None:
    """Return how these replies are added up; not at all if only some are wanted."""
    if reduction is not None and 0 < reduction.enough < len(messages):
        return None
    return reduction
