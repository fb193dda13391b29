"""The running sum of masked updates, in a worker.

Masked updates are elements of a ring, whose sum does not depend on any order. The sum
of some of them says as little about one as the sum of all.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, RecordDict

from fedge.errors import PeerError
from fedge.flower.records import array_of, read_array, record_of
from fedge.flower.secure_messages import vector_bytes
from fedge.secagg.packing import add_packed
from fedge.secagg.ring import Profile, RingArray

_SUM = "sum"


@dataclass(frozen=True, slots=True)
class MaskedReduction:
    """Add masked updates up (see `fedge.flower.partial.Reduction`).

    Attributes:
        profile: the ring.
        size: elements of an update.
    """

    profile: Profile
    size: int

    @property
    def kind(self) -> str:
        """Its name."""
        return "masked"

    @property
    def enough(self) -> int:
        """Return 0: all updates are wanted."""
        return 0

    def to_json(self) -> str:
        """Return its settings as JSON."""
        profile = self.profile
        return json.dumps([profile.ring_bits, profile.value_bits, self.size])

    @classmethod
    def from_json(cls, text: str) -> "MaskedReduction":
        """Return the reduction that `to_json` wrote."""
        ring_bits, value_bits, size = json.loads(text)
        return cls(Profile(ring_bits, value_bits), size)

    def start(self) -> "MaskedTotal":
        """Return an empty sum."""
        return MaskedTotal(self)


class MaskedTotal:
    """The sum of a worker's masked updates."""

    def __init__(self, settings: MaskedReduction) -> None:
        self._profile, self._size = settings.profile, settings.size
        self._sum: RingArray = np.zeros(settings.size, settings.profile.dtype)
        self._nodes: dict[int, None] = {}  # in order

    def add(self, reply: Message) -> None:
        """Add one reply; raise PeerError and change nothing if it does not fit."""
        node = reply.metadata.src_node_id
        if node in self._nodes:
            raise PeerError("reply: this node's update was added already")
        data = vector_bytes(reply.content, self._profile.bytes_for(self._size))
        add_packed(self._sum, data, self._profile)
        self._nodes[node] = None

    def merge(self, content: RecordDict, nodes: Sequence[int]) -> None:
        """Add a partial sum; raise PeerError and change nothing if it does not fit."""
        if not self._nodes.keys().isdisjoint(nodes):
            raise PeerError("reply: one of these nodes' updates was added already")
        total = partial_sum_of(content)
        if total.shape != self._sum.shape or total.dtype != self._sum.dtype:
            raise PeerError(f"partial sum: {total.dtype} of shape {total.shape}")
        np.add(self._sum, total, out=self._sum)
        self._nodes.update(dict.fromkeys(nodes))

    def contents(self) -> Sequence[tuple[Sequence[int], RecordDict]]:
        """Return what was added, as nodes and partial sum."""
        if not self._nodes:
            return []
        record = record_of({_SUM: array_of(self._sum)})
        return [(list(self._nodes), RecordDict({_SUM: record}))]


def partial_sum_of(content: RecordDict) -> RingArray:
    """Return the ring elements of a partial sum."""
    values: RingArray = read_array(content.array_records[_SUM][_SUM])
    return values
