"""Partial sums: replies that were added up where they were made.

A layer that only wants a sum says so with a `Reduction`; a grid whose clients run in
workers of its own may then hand over one partial sum per worker instead of one reply
per client, so traffic and memory grow with the workers and not with the cohort. A
partial sum travels as a message like any other; `nodes_of` says who is in it. A grid
that cannot add simply yields the replies.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message.message import make_message

from fedge.flower.records import payload_bytes

_PARTIAL = "fedge.partial"


class Accumulator(Protocol):
    """A sum that grows reply by reply; each worker has one for each request."""

    def add(self, reply: Message) -> None:
        """Add a reply; raise PeerError, unchanged, for one that must not be added."""

    def merge(self, content: RecordDict, nodes: Sequence[int]) -> None:
        """Add a partial sum; raise PeerError, unchanged, if it must not be added.

        What it holds may be gone after the call: nothing of it is kept.
        """

    def contents(self) -> Sequence[tuple[Sequence[int], RecordDict]]:
        """Return what was added, as nodes and partial sum."""


@runtime_checkable
class Reduction(Protocol):
    """What may be done to the replies of one request where they are made.

    Workers are older than the request, so it reaches them as text (`to_json`), under
    the name that `fedge.flower.reductions` knows it by.

    Attributes:
        kind: its name.
        enough: replies that the sum needs; more are not wanted. 0 wants all.
    """

    @property
    def kind(self) -> str:
        """Its name."""

    @property
    def enough(self) -> int:
        """Replies that are wanted; 0 for all."""

    def to_json(self) -> str:
        """Return its settings as JSON."""

    def start(self) -> Accumulator:
        """Return an empty sum."""


def make_partial(
    first: Message, content: RecordDict, nodes: Sequence[int], *, num_bytes: int
) -> Message:
    """Return the message of a partial sum.

    Args:
        first: any of the replies in it; its metadata is used.
        content: the sum.
        nodes: whose replies are in it.
        num_bytes: payload of these replies.
    """
    content[_PARTIAL] = ConfigRecord({"nodes": list(nodes), "bytes": num_bytes})
    return make_message(first.metadata, content)


def is_partial(reply: Message) -> bool:
    """Say whether this message is a sum of several replies."""
    return reply.has_content() and _PARTIAL in reply.content


def nodes_of(reply: Message) -> list[int]:
    """Return the nodes whose replies are in this message: one, or a partial sum's."""
    if not is_partial(reply):
        return [reply.metadata.src_node_id]
    nodes = reply.content.config_records[_PARTIAL]["nodes"]
    return [int(node) for node in nodes]  # type: ignore[union-attr]  # a list


def payload_of(reply: Message) -> int:
    """Return the bytes that the devices of this message sent; 0 for a failure."""
    if reply.has_error():
        return 0
    if not is_partial(reply):
        return payload_bytes(reply.content)
    num_bytes = reply.content.config_records[_PARTIAL]["bytes"]
    assert isinstance(num_bytes, int)
    return num_bytes
