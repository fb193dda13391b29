"""A layer that makes the network and the devices unreliable, and can be repeated.

It stands next to the base Grid, below everything that must cope with it. Requests are
dropped; replies are damaged, repeated, held back and mixed up. Only training messages
are touched, which the trips of secure aggregation are, but for the introduction.

What is damaged here is damaged behind the transport's own checks. On a real fleet TLS
and Flower's content hashes refuse such a reply before anybody reads it; in here,
`Checksums` takes their place. Without it a flipped bit that leaves a finite float32
cannot be told from an update, by no sum: not in the clear and not under masks.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedge.config.faults import FaultsConfig
from fedge.config.ranges import check_below_one
from fedge.flower.damage import bit_flipped, truncated, with_nan
from fedge.flower.fates import Trip, draw, happens, is_offline
from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.partial import Reduction
from fedge.flower.records import private_copy

# Earlier replies that a replay can choose from, of each kind.
_KEPT = 4


class Faults(GridLayer):
    """Loses, damages, repeats, delays and reorders training messages.

    Guarantee: the same seed, group, node and kind of message always have the same
    fate. Besides those that it passes on, the layer holds at most `delay_replies` +
    `reorder_window` replies, and 4 earlier ones of each kind if there are replays.

    Attributes:
        config: what goes wrong how often; None: nothing but the drops.
        drop_probability: chance that a device is offline for a whole round.
        seed: of the run.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        seed: int,
        drop_probability: float = 0.0,
        config: FaultsConfig | None = None,
    ) -> None:
        super().__init__(inner)
        check_below_one("drop_probability", drop_probability)
        self._drop_probability = drop_probability
        self._config = config or FaultsConfig()
        self._seed = seed
        self._earlier: dict[str, deque[Message]] = {}

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield an error reply for each dropped message, then what arrives."""
        delivered, trips = [], dict[int, Trip]()
        for message in messages:
            trip = Trip.of(message)
            if self._drops(trip):
                error = Error(ErrorCode.NODE_UNAVAILABLE, "dropped by the fault layer")
                yield Message(error, reply_to=message)
            else:
                delivered.append(message)
                trips[trip.node] = trip
        touches = self._config.touches_replies and any(
            trip.may_fail for trip in trips.values()
        )
        replies = stream_replies(
            self.inner,
            delivered,
            timeout=timeout,
            # A sum of replies cannot be damaged like one of them.
            reduction=None if touches else reduction,
        )
        yield from self._tamper(replies, trips) if touches else replies

    def _drops(self, trip: Trip) -> bool:
        offline = trip.may_fail and is_offline(self._drop_probability, self._seed, trip)
        return offline or self._happens("drop", trip)

    def _tamper(
        self, replies: Iterator[Message], trips: dict[int, Trip]
    ) -> Iterator[Message]:
        pairs = ((trips[reply.metadata.src_node_id], reply) for reply in replies)
        arriving = self._delayed(self._repeated(pairs))
        for _, reply in self._reordered(arriving):
            yield reply

    def _repeated(
        self, pairs: Iterator[tuple[Trip, Message]]
    ) -> Iterator[tuple[Trip, Message]]:
        """Yield old replies, the damaged ones, and some of these twice."""
        old = {kind: list(replies) for kind, replies in self._earlier.items()}
        for trip, reply in pairs:
            if self._happens("replay", trip) and trip.kind in old:
                yield trip, _copy(_choose(old[trip.kind], trip, self._seed))
            self._remember(trip, reply)
            damaged = self._damaged(trip, reply)
            yield trip, damaged
            if self._happens("duplicate", trip):
                yield trip, _copy(damaged)

    def _remember(self, trip: Trip, reply: Message) -> None:
        if self._config.replay > 0.0 and reply.has_content():
            kept = self._earlier.setdefault(trip.kind, deque(maxlen=_KEPT))
            kept.append(_copy(reply))

    def _damaged(self, trip: Trip, reply: Message) -> Message:
        if reply.has_error():
            return reply
        content = reply.content
        for fault, damage in (
            ("nan", with_nan),
            ("bit_flip", bit_flipped),
            ("truncate", truncated),
        ):
            if self._happens(fault, trip):
                place = draw(self._seed, trip, f"{fault} where")
                content = damage(content, place)
        return reply if content is reply.content else _with(reply, content)

    def _delayed(
        self, pairs: Iterator[tuple[Trip, Message]]
    ) -> Iterator[tuple[Trip, Message]]:
        """Hold some replies back until so many others have passed."""
        held: deque[tuple[int, tuple[Trip, Message]]] = deque()
        for position, pair in enumerate(pairs):
            if self._happens("delay", pair[0]):
                held.append((position + self._config.delay_replies, pair))
            else:
                yield pair
            while held and held[0][0] <= position:
                yield held.popleft()[1]
        yield from (pair for _, pair in held)

    def _reordered(
        self, pairs: Iterator[tuple[Trip, Message]]
    ) -> Iterator[tuple[Trip, Message]]:
        """Mix up each window of consecutive replies."""
        window: list[tuple[Trip, Message]] = []
        for pair in pairs:
            window.append(pair)
            if len(window) == self._config.reorder_window:
                yield from self._mixed(window)
                window.clear()
        yield from self._mixed(window)

    def _mixed(self, window: list[tuple[Trip, Message]]) -> list[tuple[Trip, Message]]:
        if self._config.reorder_window == 1:
            return list(window)
        return sorted(window, key=lambda pair: draw(self._seed, pair[0], "place"))

    def _happens(self, fault: str, trip: Trip) -> bool:
        return trip.may_fail and happens(
            getattr(self._config, fault), self._seed, trip, fault
        )


def _choose(old: list[Message], trip: Trip, seed: int) -> Message:
    """Return one of the earlier replies; the same device's own if it is there."""
    own = [reply for reply in old if reply.metadata.src_node_id == trip.node]
    candidates = own or old
    return candidates[draw(seed, trip, "replay which") % len(candidates)]


def _copy(reply: Message) -> Message:
    if reply.has_error():
        return make_message(reply.metadata, error=reply.error)
    return make_message(reply.metadata, private_copy(reply.content))


def _with(reply: Message, content: RecordDict) -> Message:
    return make_message(reply.metadata, content)
