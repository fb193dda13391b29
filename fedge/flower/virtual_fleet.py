"""VirtualFleet: a grid whose devices behave like a fleet's, in virtual time.

The machine computes at full speed; what passes is a clock. For each message the fleet
says beforehand when its answer would arrive, or that none will. Only those that arrive
in time are run, in the order of their arrival.

Not in here: what the devices are (`fedge.fleet`). Left out: a device that is asked
again while it still works on an earlier message does both at once.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fedge.config.ranges import check_at_least
from fedge.fleet.clock import VirtualClock
from fedge.fleet.event import Event, Outcome
from fedge.fleet.fleet import Fleet
from fedge.flower.fleet_trips import Dispatcher, Trip, in_order
from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.partial import Reduction

_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Account:
    """What one device spent up to now.

    Attributes:
        requests: messages sent to it.
        bytes_down, bytes_up: what crossed its connection.
        energy_joules: what it used.
    """

    requests: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    energy_joules: float = 0.0

    def plus(self, event: Event) -> "Account":
        """Return the account after one more message."""
        return Account(
            self.requests + 1,
            self.bytes_down + event.bytes_down,
            self.bytes_up + event.bytes_up,
            self.energy_joules + event.energy_joules,
        )


class VirtualFleet(GridLayer):
    """Gives a grid's clients the behaviour of a fleet's devices.

    Stands directly above the base grid. Client i is device i of the fleet.

    Guarantee: equal messages give equal answers, in an equal order, at equal virtual
    times, in whatever order the grid below answers; above ideal devices that are always
    there it changes nothing.
    """

    def __init__(
        self,
        inner: Grid,
        fleet: Fleet,
        *,
        flops: Callable[[int, str], float],
        start_seconds: float = 0.0,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Wrap a grid.

        Args:
            inner: the base grid.
            fleet: what the devices are.
            flops: floating point operations that a message takes, by device and
                message type; with the step of secure aggregation, as "train:fit", if
                there is one.
            start_seconds: where the clock begins, >= 0.
            on_event: told what happened to each message, in the order of time; that of
                a request when it is over.
        """
        super().__init__(inner)
        check_at_least("start_seconds", start_seconds, 0.0)
        self._clock: VirtualClock[Trip] = VirtualClock(start_seconds)
        self._dispatcher = Dispatcher(fleet, inner.get_node_ids(), flops)
        self._on_event = on_event or (lambda _: None)
        self._account_by_device: dict[int, Account] = {}
        self._pushed: dict[str, Trip] = {}
        self._unrun: set[str] = set()
        self._replies: dict[str, Message] = {}
        self._serial = itertools.count(1)

    @property
    def clock_seconds(self) -> float:
        """The present, in virtual seconds."""
        return self._clock.now_seconds

    @property
    def account_by_device(self) -> Mapping[int, Account]:
        """What each device spent that was ever asked."""
        return dict(self._account_by_device)

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield the replies in the order in which they would arrive.

        The clock moves to the arrival of what was yielded last. At the end it moves to
        the deadline if somebody is missing; without a deadline it stays at the last
        arrival, or, if nobody arrived at all, moves to when the last device dropped
        out or the first one can be reached again.

        Args:
            messages: what to send; all of it at the present.
            timeout: *virtual* seconds after which no further reply is waited for.
            reduction: how the grid below may add replies up. If it says how many are
                enough, only so many devices are run, the first to arrive.
        """
        request = _Request(self._clock, self._dispatcher, messages, timeout)
        try:
            yield from request.run(self.inner, reduction)
        finally:  # also if nobody wants the rest
            for event, trip in request.events():
                self._account(event, trip)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send the messages at the present; they run when a reply is pulled."""
        trips = [
            self._dispatcher.trip(message, self.clock_seconds) for message in messages
        ]
        running = [trip for trip in trips if trip.answers]
        ids = iter(list(self.inner.push_messages([t.message for t in running])))
        pushed = {next(ids) if t.answers else self._own_id(t): t for t in trips}
        self._pushed.update(pushed)
        self._unrun.update(i for i, trip in pushed.items() if trip.answers)
        return list(pushed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are due; if none is, let time pass until one is."""
        asked = [i for i in dict.fromkeys(message_ids) if i in self._pushed]
        if not asked:
            return []
        self._run_pushed()
        ends = [self._pushed[message_id].ends_seconds for message_id in asked]
        self._clock.advance(min(ends))
        due = sorted(
            (end, place)
            for place, end in enumerate(ends)
            if end <= self._clock.now_seconds
        )
        return [self._hand_over(asked[place]) for _, place in due]

    def _own_id(self, trip: Trip) -> str:
        """Give a message that never reaches the grid below an id."""
        message_id = f"fleet-{next(self._serial)}"
        # Flower's SuperLink gives a message its id in the same way.
        trip.message.metadata.__dict__["_message_id"] = message_id
        return message_id

    def _run_pushed(self) -> None:
        """Run everything that was pushed and not run yet, in one go."""
        waiting = set(self._unrun)
        while waiting:
            before = len(waiting)
            in_turn = [
                message_id for message_id in self._pushed if message_id in waiting
            ]
            for reply in self.inner.pull_messages(in_turn):
                message_id = reply.metadata.reply_to_message_id
                waiting.discard(message_id)
                self._replies[message_id] = reply
            if len(waiting) == before:
                time.sleep(_POLL_SECONDS)  # a grid with real devices
        self._unrun.clear()

    def _hand_over(self, message_id: str) -> Message:
        trip = self._pushed.pop(message_id)
        reply = self._replies.pop(message_id, None)
        self._account(trip.known(self.clock_seconds, reply), trip)
        return trip.error() if reply is None else reply

    def _account(self, event: Event, trip: Trip) -> None:
        if trip.device is None:
            return
        account = self._account_by_device.get(trip.device, Account())
        self._account_by_device[trip.device] = account.plus(event)
        self._on_event(event)


class _Request:
    """One streamed request: who is waited for, and until when."""

    def __init__(
        self,
        clock: VirtualClock[Trip],
        dispatcher: Dispatcher,
        messages: Iterable[Message],
        timeout: float | None,
    ) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        start = clock.now_seconds
        self._deadline = None if timeout is None else start + max(0.0, timeout)
        self._trips = self._foresee(messages)
        self._reply_by_trip: dict[int, Message] = {}
        self._num_good = 0

    def run(self, inner: Grid, reduction: Reduction | None) -> Iterator[Message]:
        """Yield error replies and replies, by time; move the clock."""
        lost = [trip for trip in self._trips if not trip.answers]
        coming = [trip for trip in self._trips if trip.answers]
        for trips, reply in self._answers(inner, coming, reduction):
            while lost and lost[0].ends_seconds <= trips[-1].ends_seconds:
                yield lost.pop(0).error()
            self._note(trips, reply)
            yield reply
        if reduction and self._num_good >= reduction.enough > 0:
            return
        self._give_up()
        for trip in lost:
            yield trip.error()
        for trip in coming:
            if id(trip) not in self._reply_by_trip:
                self._reply_by_trip[id(trip)] = trip.error()
                yield self._reply_by_trip[id(trip)]

    def events(self) -> Iterator[tuple[Event, Trip]]:
        """Yield what happened to each message, in the order of time."""
        now = self._clock.now_seconds
        known = [
            (trip.known(now, self._reply_by_trip.get(id(trip))), trip)
            for trip in self._trips
        ]
        yield from sorted(known, key=lambda pair: pair[0].received_seconds)

    def _foresee(self, messages: Iterable[Message]) -> Sequence[Trip]:
        """Return the trips in the order of their ends."""
        order: VirtualClock[Trip] = VirtualClock(self._clock.now_seconds)
        for message in messages:
            trip = self._dispatcher.trip(message, self._clock.now_seconds)
            if self._deadline is not None and trip.ends_seconds > self._deadline:
                trip = trip.late()
            order.schedule(trip.ends_seconds, trip)
        return [order.pop() for _ in range(len(order))]

    def _answers(
        self, inner: Grid, coming: Sequence[Trip], reduction: Reduction | None
    ) -> Iterator[tuple[list[Trip], Message]]:
        """Run devices, only as many as are enough; yield their replies in order."""
        enough = reduction.enough if reduction else 0
        waiting = list(coming)
        while waiting:
            size = enough - self._num_good if enough else len(waiting)
            if size <= 0:
                return
            chunk, waiting = waiting[:size], waiting[size:]
            replies = stream_replies(
                inner, [trip.message for trip in chunk], reduction=reduction
            )
            yield from in_order(chunk, replies)

    def _note(self, trips: Sequence[Trip], reply: Message) -> None:
        self._clock.advance(trips[-1].ends_seconds)
        self._reply_by_trip.update((id(trip), reply) for trip in trips)
        self._num_good += 0 if reply.has_error() else len(trips)

    def _give_up(self) -> None:
        """Let the time pass for which one waits for those that do not answer."""
        missing = [trip for trip in self._trips if id(trip) not in self._reply_by_trip]
        if not missing:
            return
        if self._deadline is not None:
            self._clock.advance(self._deadline)
        elif not self._num_good:
            self._clock.advance(self._nobody_seconds(missing))

    def _nobody_seconds(self, missing: Sequence[Trip]) -> float:
        """Return when one who has no deadline and no answer would try again."""
        now = self._clock.now_seconds
        stopped = [
            trip.ends_seconds
            for trip in missing
            if trip.event.outcome is Outcome.dropped
        ]
        if stopped:
            return max(stopped)
        online = self._dispatcher.next_online(missing, now)
        return online if math.isfinite(online) else now
