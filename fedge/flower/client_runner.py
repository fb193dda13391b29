"""Running clients of a ClientApp in this process: contexts, isolation of failures.

Both kinds of LocalGrid use it: the one without workers calls it directly, and each
worker process has one. A context is made when a client is first asked and kept only if
the client left something in it, so a client that was never asked costs nothing, and one
without state no memory.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from fedge.flower.batching import Computed, Stacked, computing, together_of
from fedge.flower.codec import check_content
from fedge.flower.records import private_copy

logger = logging.getLogger(__name__)

UserConfig = Mapping[str, bool | int | float | str]
FIRST_NODE_ID = SUPERLINK_NODE_ID + 1
TOGETHER = -2
_MAX_REASON_LENGTH = 500


def no_node_config(index: int) -> UserConfig:
    """Return no entries besides those that every client has."""
    return {}


@dataclass(frozen=True)
class Clients:
    """The virtual clients of a simulation.

    Attributes:
        app: the app every client runs.
        count: how many there are; client i has node id i + 2.
        run_id: the run they take part in.
        run_config: what they find in `context.run_config`.
        node_config: further entries of a client's node config, by index.
        batching: whether clients may be computed together if the app can.
    """

    app: ClientApp
    count: int
    run_id: int = 1
    run_config: UserConfig = field(default_factory=dict)
    node_config: Callable[[int], UserConfig] = no_node_config
    batching: bool = True

    def new_context(self, node_id: int) -> Context:
        """Return the context of a client that has not run yet."""
        index = node_id - FIRST_NODE_ID
        given = {"partition-id": index, "num-partitions": self.count}
        return Context(
            run_id=self.run_id,
            node_id=node_id,
            node_config={**given, **self.node_config(index)},
            state=RecordDict(),
            run_config=dict(self.run_config),
        )


class ClientRunner:
    """Runs clients one after the other, or several together, and never raises."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._together = together_of(clients.app) if clients.batching else None
        self._contexts: dict[int, Context] = {}

    def state_of(self, node_id: int) -> RecordDict | None:
        """Return what a client keeps between messages; None if that is nothing."""
        context = self._contexts.get(node_id)
        return context.state if context else None

    def set_state(self, node_id: int, state: RecordDict) -> None:
        """Give a client the state that it left elsewhere."""
        context = self._clients.new_context(node_id)
        context.state = state
        self._contexts[node_id] = context

    def forget(self, node_ids: Sequence[int]) -> None:
        """Drop the states of clients that now run elsewhere."""
        for node_id in node_ids:
            self._contexts.pop(node_id, None)

    def answers(
        self,
        messages: Sequence[Message],
        *,
        ready: Computed | None = None,
        on_start: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Message]:
        """Yield each client's reply, in the order of the messages.

        Args:
            messages: one for each client.
            ready: what `compute_together` returned for them.
            on_start: told the place of each message before its client runs, and
                `TOGETHER` before several run together.
        """
        ready = {} if ready is None else ready
        for place, message in enumerate(messages):
            if isinstance(ready, Stacked):
                yield Message(ready.content(place), reply_to=message)
                continue
            on_start(place)
            with computing(ready.get(message.metadata.message_id)):
                yield self._answer(message)

    def compute_together(
        self, messages: Sequence[Message], *, on_start: Callable[[int], None]
    ) -> Computed:
        """Return what the app computes for several clients at once, if it does."""
        if self._together is None or len(messages) < 2:
            return {}
        on_start(TOGETHER)
        pairs = [(m, self._context_of(m.metadata.dst_node_id)) for m in messages]
        try:
            return self._together(pairs)
        except Exception as exc:  # each client's own attempt will tell what is wrong
            logger.debug("clients are computed one by one: %s", exc)
            return {}

    def _answer(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        context = self._context_of(node_id)
        # The client gets a message of its own: what it changes in there (records may
        # be emptied to save memory) must not reach the next client.
        delivered = make_message(message.metadata, private_copy(message.content))
        before = private_copy(context.state)
        try:
            reply = self._clients.app(delivered, context)
            _check_reply(reply, message)
            check_content(context.state)
            self._check_context(context)
        except (Exception, SystemExit) as exc:  # any failure is the client's
            reply = failure(message, f"{type(exc).__name__}: {exc}")
            context.state = before  # a client that fails has done nothing
        if context.state:
            self._contexts[node_id] = context
        else:
            self._contexts.pop(node_id, None)
        return reply

    def _check_context(self, context: Context) -> None:
        if context.run_config != self._clients.run_config:
            raise ValueError("a ClientApp must not change its run config")

    def _context_of(self, node_id: int) -> Context:
        found = self._contexts.get(node_id)
        return found or self._clients.new_context(node_id)


def failure(message: Message, reason: str) -> Message:
    """Return the error reply of a client that failed, and log it."""
    index = message.metadata.dst_node_id - FIRST_NODE_ID
    reason = reason[:_MAX_REASON_LENGTH]
    logger.warning("client %d failed: %s", index, reason)
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
    return Message(error, reply_to=message)


def _check_reply(reply: object, message: Message) -> None:
    if not isinstance(reply, Message):
        raise TypeError(f"a ClientApp must return a Message, not {type(reply)}")
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        raise ValueError("a ClientApp must return a reply to the message it was given")
    if reply.has_content():
        check_content(reply.content)
