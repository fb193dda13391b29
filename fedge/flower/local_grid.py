"""LocalGrid: every client in this process, without a network, a queue or a poll.

It runs any Flower ClientApp of the Message API. The content of a broadcast is shared by
all its messages and never copied per client; contexts are made when a client is first
asked; a client that raises becomes that client's error reply and the run goes on.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedge.errors import ConfigError
from fedge.flower.node_list import claim_task_identity
from fedge.flower.records import private_copy

logger = logging.getLogger(__name__)

UserConfig = Mapping[str, bool | int | float | str]
_FIRST_NODE_ID = SUPERLINK_NODE_ID + 1
_MAX_REASON_LENGTH = 500


class LocalGrid(Grid):
    """An in-process Grid over `num_clients` virtual clients.

    Guarantee: clients run in the order of their messages, one at a time, so equal
    messages give equal replies in an equal order.

    Flower makes messages only for a known task, so creating a LocalGrid makes this
    process that task (run `run_id`, the server's node).

    Attributes:
        client_app: the app every client runs.
        num_clients: virtual clients; client i has node id i + 2 and the node config
            entries partition-id = i and num-partitions = num_clients.
    """

    def __init__(
        self,
        client_app: ClientApp,
        *,
        num_clients: int,
        run_config: UserConfig | None = None,
        node_config: Callable[[int], UserConfig] | None = None,
        run_id: int = 1,
    ) -> None:
        if num_clients < 1:
            raise ConfigError(f"num_clients: {num_clients} must be at least 1")
        self.client_app = client_app
        self.num_clients = num_clients
        self._run_config = dict(run_config or {})
        self._node_config = node_config or (lambda _: {})
        self._context_by_node: dict[int, Context] = {}
        self._pushed: dict[str, Message] = {}
        self._serial = itertools.count(1)
        self.set_run(Run.create_empty(run_id))

    def set_run(self, run: Run) -> None:
        """Set the run, and make this process its server task."""
        self._run = run
        claim_task_identity(run.run_id)

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """Return the node ids, in the order of the clients."""
        return range(_FIRST_NODE_ID, _FIRST_NODE_ID + self.num_clients)

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
        return [self._answer(self._pushed.pop(message_id)) for message_id in found]

    def stream(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Run one client after the other and yield each reply.

        Args:
            messages: what to send; taken one by one.
            timeout: no further client is started after so many seconds. A client that
                runs is not interrupted.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for message in messages:
            if deadline is not None and time.monotonic() >= deadline:
                return
            yield self._answer(self._stamp(message))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Return the replies to the messages that were answered in time."""
        return list(self.stream(messages, timeout=timeout))

    def _stamp(self, message: Message) -> Message:
        # Flower's SuperLink gives a message its id in the same way: there is no setter.
        message.metadata.__dict__["_message_id"] = str(next(self._serial))
        return message

    def _answer(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        index = node_id - _FIRST_NODE_ID
        if not 0 <= index < self.num_clients:
            reason = f"node {node_id} is not in this grid"
            return self._stamp(
                Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
            )
        # The client gets a message of its own: what it changes in there (records may
        # be emptied to save memory) must not reach the next client.
        delivered = make_message(message.metadata, private_copy(message.content))
        try:
            reply = self.client_app(delivered, self._context(node_id, index))
            _check_reply(reply, message)
        except (Exception, SystemExit) as exc:  # any failure is the client's
            reason = f"{type(exc).__name__}: {exc}"[:_MAX_REASON_LENGTH]
            logger.warning("client %d failed: %s", index, reason)
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
            reply = Message(error, reply_to=message)
        return self._stamp(reply)

    def _context(self, node_id: int, index: int) -> Context:
        if node_id not in self._context_by_node:
            given = {"partition-id": index, "num-partitions": self.num_clients}
            self._context_by_node[node_id] = Context(
                run_id=self._run.run_id,
                node_id=node_id,
                node_config={**given, **self._node_config(index)},
                state=RecordDict(),
                run_config=dict(self._run_config),
            )
        return self._context_by_node[node_id]


def _check_reply(reply: object, message: Message) -> None:
    if not isinstance(reply, Message):
        raise TypeError(f"a ClientApp must return a Message, not {type(reply)}")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ValueError("a ClientApp must return a reply to the message it was given")
