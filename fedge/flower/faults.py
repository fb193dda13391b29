"""A layer that makes devices unreliable: seeded, so a run can be repeated.

Only training messages are dropped. Which ones depends on the seed, the message's group
(its round) and the node, and not on the order or number of calls.
"""

import hashlib
from collections.abc import Iterable, Iterator

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedge.config.ranges import check_below_one
from fedge.flower.layer import GridLayer, stream_replies


class Faults(GridLayer):
    """Drops training messages with a given probability.

    Guarantee: the same seed, group and node always have the same fate.
    """

    def __init__(self, inner: Grid, *, drop_probability: float, seed: int) -> None:
        super().__init__(inner)
        check_below_one("drop_probability", drop_probability)
        self._drop_probability = drop_probability
        self._seed = seed

    def stream(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield an error reply for each dropped message, then the others' replies."""
        delivered = []
        for message in messages:
            if self._drops(message):
                error = Error(ErrorCode.NODE_UNAVAILABLE, "dropped by the fault layer")
                yield Message(error, reply_to=message)
            else:
                delivered.append(message)
        yield from stream_replies(self.inner, delivered, timeout=timeout)

    def _drops(self, message: Message) -> bool:
        if not message.metadata.message_type.startswith("train"):
            return False
        fate = (
            f"{self._seed}/{message.metadata.group_id}/{message.metadata.dst_node_id}"
        )
        # A hash and not a generator: the fate must not depend on who was asked before.
        draw = int.from_bytes(hashlib.sha256(fate.encode()).digest()[:8], "big") / 2**64
        return draw < self._drop_probability
