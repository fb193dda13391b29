"""Which message meets which fault: decided by a hash, so that a run can be repeated.

Nothing is remembered and no generator is advanced: a fate depends on the seed and on
the message alone, not on who was asked before, and a resumed run meets the faults that
the uninterrupted one would have met.
"""

import hashlib
from dataclasses import dataclass
from typing import Self

from flwr.app import Message

from fedge.errors import PeerError
from fedge.flower.secure_messages import Step, step_of

_TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Trip:
    """What the fate of a request and of its reply depends on, besides the seed.

    Attributes:
        group: the message's group: its round and try.
        node: the device.
        kind: the message type, with the step of secure aggregation if there is one.
    """

    group: str
    node: int
    kind: str

    @classmethod
    def of(cls, request: Message) -> Self:
        """Return the trip that a request begins."""
        metadata = request.metadata
        return cls(metadata.group_id, metadata.dst_node_id, _kind_of(request))

    @property
    def is_training(self) -> bool:
        """Whether it is training, as every trip of secure aggregation is."""
        return self.kind.startswith(_TRAIN)

    @property
    def may_fail(self) -> bool:
        """Whether faults concern it: training, but no introduction.

        Devices introduce themselves once in the life of a coordinator, so again when it
        was restarted. Who takes part in a session must not depend on that.
        """
        return self.is_training and self.kind != f"{_TRAIN}:{Step.hello}"


def _kind_of(request: Message) -> str:
    kind = request.metadata.message_type
    try:
        step = step_of(request.content)
    except PeerError:  # not for us to refuse
        step = None
    return kind if step is None else f"{kind}:{step}"


def draw(seed: int, trip: Trip, purpose: str) -> int:
    """Return 64 uniform bits for one purpose.

    Guarantee: depends on the arguments alone.
    """
    text = f"{seed}/{trip.group}/{trip.node}/{trip.kind}/{purpose}"
    return _bits(text)


def happens(probability: float, seed: int, trip: Trip, fault: str) -> bool:
    """Return whether this fault befalls this trip."""
    return probability > 0.0 and draw(seed, trip, fault) < probability * 2**64


def is_offline(probability: float, seed: int, trip: Trip) -> bool:
    """Return whether the device does not answer any training message of this group."""
    text = f"{seed}/{trip.group}/{trip.node}"
    return trip.is_training and _bits(text) / 2**64 < probability


def _bits(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
