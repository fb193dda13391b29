"""Messages to a fleet: what each will become, and what was known of it in the end."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord, Error, Message
from flwr.common.constant import ErrorCode

from fedge.errors import PeerError
from fedge.fleet.event import Event, Outcome
from fedge.fleet.fleet import Fleet
from fedge.fleet.timeline import Work
from fedge.flower.partial import nodes_of, payload_of
from fedge.flower.records import payload_bytes
from fedge.flower.secure_messages import Step, step_of
from fedge.flower.wire import DESCRIBE

# What a reply without arrays weighs: some metrics and their names (estimate).
SMALL_REPLY_BYTES = 1024
# Under secure aggregation the model goes out in one step and comes back in another.
_MODEL_COMES_BACK = ("train", f"train:{Step.mask}")
# Asked again when a coordinator is started again, so a run that was interrupted would
# have another clock if these took time.
_OUTSIDE_TIME = (DESCRIBE, f"train:{Step.hello}")


@dataclass(frozen=True, slots=True)
class Trip:
    """One message on its way, as the fleet foresees it.

    Attributes:
        message: what is sent.
        device: to whom: its place in the fleet; None for a message outside of the
            fleet's time: to another node, or to ask who a device is.
        sent_seconds: when.
        ends_seconds: when the answer arrives, or when the device stopped.
        event: what will have happened, if nobody stops waiting before.
    """

    message: Message
    device: int | None
    sent_seconds: float
    ends_seconds: float
    event: Event

    @property
    def answers(self) -> bool:
        """Whether an answer will come."""
        return self.event.outcome is Outcome.ok

    def late(self) -> "Trip":
        """Return the trip of a device whose answer nobody waits for any more."""
        return replace(self, event=replace(self.event, outcome=Outcome.late))

    def known(self, now_seconds: float, reply: Message | None) -> Event:
        """Return what happened, as it is known at this moment.

        Args:
            now_seconds: the present; nothing is known later than now.
            reply: the answer, or a partial sum that it is part of, if it was seen.
        """
        event, at = self.event, min(self.ends_seconds, now_seconds)
        if not self.answers:
            return replace(event, received_seconds=at, clock_seconds=now_seconds)
        if reply is None:
            outcome, num_bytes = Outcome.surplus, event.bytes_up
            at = now_seconds
        elif reply.has_error():
            outcome, num_bytes = Outcome.failed, 0
        else:
            outcome, num_bytes = Outcome.ok, payload_of(reply) // len(nodes_of(reply))
        return replace(
            event,
            received_seconds=at,
            clock_seconds=now_seconds,
            outcome=outcome,
            bytes_up=num_bytes,
        )

    def error(self) -> Message:
        """Return the error reply of a message that gets no answer."""
        after = self.ends_seconds - self.sent_seconds
        reason = {
            Outcome.offline: "the device is offline",
            Outcome.dropped: f"the device dropped out after {after:.1f} virtual s",
            Outcome.memory: "the device's memory is too small for the model",
            Outcome.late: f"the device needs {after:.1f} virtual s, past the deadline",
        }.get(self.event.outcome, "the device gave no answer")
        place = f"device {self.device} at {self.sent_seconds:.1f} virtual s"
        error = Error(ErrorCode.NODE_UNAVAILABLE, f"{place}: {reason}")
        return Message(error, reply_to=self.message)


class Dispatcher:
    """Foresees the trips of messages; knows which node is which device.

    Attributes:
        fleet: the devices.
        nodes: their nodes, in order; a range costs nothing for a million of them.
        flops: work of one message, by device and phase (`phase_of`).
    """

    def __init__(
        self,
        fleet: Fleet,
        nodes: Iterable[int],
        flops: Callable[[int, str], float],
    ) -> None:
        self.fleet = fleet
        self.flops = flops
        self._device_of = _finder(nodes)
        self._model_bytes = 0

    def trip(self, message: Message, now_seconds: float) -> Trip:
        """Return what becomes of a message that is sent now."""
        device = self._device_of(message.metadata.dst_node_id)
        phase, group = phase_of(message), message.metadata.group_id
        is_device = device is not None and device < self.fleet.num_devices
        if device is None or not is_device or phase in _OUTSIDE_TIME:
            return _outside(message, now_seconds)
        journey = self.fleet.journey(
            device,
            phase=phase,
            fate=f"{group}/{phase.replace(Step.hello, Step.fit)}",
            work=self._work(message, phase, device),
            start_seconds=now_seconds,
        )
        arrival = journey.arrival
        event = Event(
            device=device,
            phase=phase,
            sent_seconds=now_seconds,
            received_seconds=arrival.arrival_seconds,
            bytes_down=arrival.bytes_down,
            bytes_up=arrival.bytes_up,
            compute_seconds=arrival.compute_seconds,
            energy_joules=arrival.energy_joules,
            outcome=journey.outcome,
            profile=self.fleet.device(device).profile.name,
            group=group,
            download_seconds=arrival.download_seconds,
            upload_seconds=arrival.upload_seconds,
            peak_celsius=arrival.peak_celsius,
        )
        return Trip(message, device, now_seconds, arrival.arrival_seconds, event)

    def next_online(self, trips: Sequence[Trip], now_seconds: float) -> float:
        """Return when the first of these devices can be reached."""
        devices = [trip.device for trip in trips if trip.device is not None]
        return min(
            (self.fleet.online_from(device, now_seconds) for device in devices),
            default=now_seconds,
        )

    def _work(self, message: Message, phase: str, device: int) -> Work:
        """Return what a message asks for: a trained model weighs what was sent."""
        down, arrays = _sizes(message)
        self._model_bytes = arrays or self._model_bytes
        up = self._model_bytes if phase in _MODEL_COMES_BACK else SMALL_REPLY_BYTES
        return Work(bytes_down=down, bytes_up=up, flops=self.flops(device, phase))


def phase_of(message: Message) -> str:
    """Return a message's type, with the step of secure aggregation if there is one."""
    kind = message.metadata.message_type
    try:
        step = step_of(message.content) if message.has_content() else None
    except PeerError:  # not for us to refuse
        step = None
    return kind if step is None else f"{kind}:{step}"


def _sizes(message: Message) -> tuple[int, int]:
    """Return the bytes of a message's payload, and of the arrays in it."""
    if not message.has_content():
        return 0, 0
    arrays = sum(
        len(array.data)
        for record in message.content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )
    return payload_bytes(message.content), arrays


def _outside(message: Message, now_seconds: float) -> Trip:
    """Return a trip that the grid below answers at once, for nobody's account."""
    event = Event(
        device=0,
        phase=phase_of(message),
        sent_seconds=now_seconds,
        received_seconds=now_seconds,
        bytes_down=0,
        bytes_up=0,
        compute_seconds=0.0,
        energy_joules=0.0,
        outcome=Outcome.ok,
    )
    return Trip(message, None, now_seconds, now_seconds, event)


def _finder(nodes: Iterable[int]) -> Callable[[int], int | None]:
    if isinstance(nodes, range):
        return functools.partial(_place_in, nodes)
    return {node: place for place, node in enumerate(nodes)}.get


def _place_in(nodes: range, node: int) -> int | None:
    return nodes.index(node) if node in nodes else None


def in_order(
    trips: Sequence[Trip], replies: Iterator[Message]
) -> Iterator[tuple[list[Trip], Message]]:
    """Yield each reply with its trips, in the order of the trips.

    Guarantee: the order in which the replies come does not matter. One that comes too
    early is held back; a sum of several comes after all single ones that precede its
    last trip. Trips without a reply yield nothing.

    Args:
        trips: in the order of their ends.
        replies: to their messages, in any order; some may be partial sums.
    """
    places = _Places(trips)
    held: dict[int, tuple[list[Trip], Message]] = {}
    following = 0
    for reply in replies:
        taken = places.take(reply)
        if not taken:
            continue  # an answer to a question that was not asked
        held[max(taken)] = ([trips[place] for place in sorted(taken)], reply)
        while following in held and len(held[following][0]) == 1:
            yield held.pop(following)
            following += 1
    for place in sorted(held):
        yield held[place]


class _Places:
    """Which trips are still unanswered, by node."""

    def __init__(self, trips: Sequence[Trip]) -> None:
        self._trips = trips
        self._by_node: dict[int, list[int]] = {}
        for place, trip in enumerate(trips):
            node = trip.message.metadata.dst_node_id
            self._by_node.setdefault(node, []).append(place)

    def take(self, reply: Message) -> list[int]:
        """Return the places of the trips that a reply ends, and forget them."""
        asked = reply.metadata.reply_to_message_id
        taken = []
        for node in nodes_of(reply):
            places = self._by_node.get(node)
            if not places:
                continue
            # More than one only if a node was asked twice in one request.
            place = next(
                (
                    place
                    for place in places
                    if self._trips[place].message.metadata.message_id == asked
                ),
                places[0],
            )
            places.remove(place)
            taken.append(place)
        return taken
