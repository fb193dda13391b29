"""Actors on the nodes of a Ray cluster that run the clients of a `RayGrid`.

The same as `pool` one level up: actors instead of workers. The contents of a request
are shared once and fetched once by each actor; then each is given clients in chunks
(`schedule`), large enough for all its workers. An actor that is lost, or whose node is,
takes with it what it had not handed over; that is computed again by others, from what
the clients kept before.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from flwr.app import Error, Message

from fedge.errors import ConfigError, TransportError
from fedge.flower.client_runner import FIRST_NODE_ID
from fedge.flower.client_states import ClientStates
from fedge.flower.codec import (
    Blobs,
    Plain,
    copy_content,
    decode_content,
    encode_content,
)
from fedge.flower.job import Job, describe
from fedge.flower.parcels import pack, unpack
from fedge.flower.partial import Reduction
from fedge.flower.ray_cluster import Call, LostError, Place, RayCluster
from fedge.flower.ray_slot import Slot
from fedge.flower.schedule import Schedule

logger = logging.getLogger(__name__)

_CHUNK_SECONDS = 0.5  # handing a chunk over costs a few ms, more between machines
_MAX_CHUNK = 512  # of a worker; bounds what is computed again after a loss
_MAX_DEATHS = 3  # of an actor in one request
_START_SECONDS = 300.0


class RayPool:
    """The actors of one grid.

    Args:
        cluster: where they run.
        find_places: returns where there should be one; asked before each request.
        settings_for: returns what an actor is told first, by its number of workers.
    """

    def __init__(
        self,
        cluster: RayCluster,
        find_places: Callable[[], list[Place]],
        settings_for: Callable[[int], str],
    ) -> None:
        self._cluster = cluster
        self._find_places = find_places
        self._settings_for = settings_for
        self._slots: list[Slot] = []
        self._states = ClientStates()
        self._seconds_by_type: dict[str, float] = {}
        self._together = False
        self._job: Job | None = None
        self._body: Call | None = None
        self._last_loss = ""

    def start(self) -> None:
        """Start the actors, and wait for the first one.

        Raises:
            ConfigError: clients cannot be made there.
            TransportError: no actor can be started.
        """
        self._staff()
        self._await_one()

    def close(self) -> None:
        """End the actors."""
        for slot in self._living():
            self._cluster.end(slot.actor)
        self._slots = []

    def stream(
        self,
        messages: Sequence[Message],
        *,
        deadline: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Run clients and yield their replies in the order of the messages.

        Args:
            messages: at most one to each client.
            deadline: `time.monotonic()` after which nobody is waited for.
            reduction: add replies up in the actors; the sums are yielded last.

        Raises:
            ConfigError: clients cannot be made on a node.
            TransportError: no actor is left, or one cannot go on.
        """
        self._settle()
        self._staff()
        self._await_one()
        self._job = job = self._new_job(messages, reduction)
        try:
            yield from self._collect(job, deadline)
        finally:
            self._job = self._body = None

    def _new_job(self, messages: Sequence[Message], reduction: Reduction | None) -> Job:
        told = describe(messages, reduction)
        self._body = self._cluster.share(pack(told.structure, told.blobs))
        schedule = Schedule(
            [self._states.home_of(m.metadata.dst_node_id) for m in messages],
            num_workers=max(self._num_workers(), len(self._slots)),
            client_seconds=self._seconds_by_type.get(messages[0].metadata.message_type),
            together=self._together,
            chunk_seconds=_CHUNK_SECONDS,
            max_chunk=_MAX_CHUNK,
        )
        contents, kinds = told.content_of, told.kind_of
        return Job(list(messages), reduction, schedule, b"", contents, kinds)

    def _num_workers(self) -> int:
        return sum(slot.place.workers for slot in self._living())

    # -- the loop ---------------------------------------------------------------------

    def _collect(self, job: Job, deadline: float | None) -> Iterator[Message]:
        while not job.is_done:
            if deadline is not None and time.monotonic() >= deadline:
                yield from job.rest()
                yield from self._sums_so_far(job)
                return
            self._give_work(job, deadline)
            yield from job.ready()
            if not job.is_done:
                self._wait(deadline)
        yield from job.ready()
        yield from job.partials()

    def _give_work(self, job: Job, deadline: float | None) -> None:
        for slot in self._slots:
            if slot.is_idle and job.schedule:
                self._give(job, slot, deadline)
            elif slot.is_idle and slot.given:
                self._ask(slot, ["finish", [], []], deadline)

    def _give(self, job: Job, slot: Slot, deadline: float | None) -> None:
        """Give an actor a chunk for each of its workers."""
        chunks = [job.schedule.take(slot.number) for _ in range(slot.place.workers)]
        blobs, items = Blobs(), []
        for number in (number for chunk in chunks for number in chunk):
            metadata = job.messages[number].metadata
            slot.given[number] = node = metadata.dst_node_id
            kept = self._states.to_move(node, slot.number)
            state = None if kept is None else encode_content(kept, blobs)
            which = (job.content_of[number], job.kind_of[number])
            what = (node, metadata.message_id, metadata.created_at, state)
            items.append((number, *which, *what))
        if not slot.knows_job:
            slot.knows_job = True
            assert slot.actor is not None
            slot.actor.begin.remote(self._body)
        groups = [len(chunk) for chunk in chunks if chunk]
        self._ask(slot, ["give", items, groups], deadline, blobs.items)

    def _sums_so_far(self, job: Job) -> Iterator[Message]:
        """Yield the sums of what was computed in time; nobody new is started."""
        if job.reduction is None:
            return
        job.schedule.drop()
        asked: set[int] = set()
        while any(slot.given for slot in self._living()):
            for slot in self._slots:
                if slot.is_idle and slot.given and slot.number not in asked:
                    asked.add(slot.number)
                    self._ask(slot, ["conclude", [], []], None)
            if not any(slot.call and slot.given for slot in self._living()):
                break
            self._wait(None)
            job.schedule.drop()  # of those that were lost meanwhile
        yield from job.rest()
        yield from job.partials()

    def _ask(
        self,
        slot: Slot,
        what: list[Plain],
        deadline: float | None,
        blobs: Sequence[bytes] = (),
    ) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        forget = self._states.take_forgotten(slot.number)
        parcel = pack([*what, forget, left], blobs)
        assert slot.actor is not None
        slot.call = slot.actor.work.remote(parcel)

    def _settle(self) -> None:
        """Let actors finish what an earlier, abandoned request left them."""
        while any(slot.call for slot in self._living() if slot.is_ready):
            self._wait(None)
        for slot in self._slots:
            slot.given, slot.knows_job, slot.deaths = {}, False, 0

    def _wait(self, deadline: float | None) -> None:
        """Wait for an actor, and take what it answers."""
        slot_by_call = {slot.call: slot for slot in self._living() if slot.call}
        seconds = None
        if deadline is not None:
            seconds = max(0.0, deadline - time.monotonic())
        for call in self._cluster.wait(list(slot_by_call), seconds):
            self._take(slot_by_call[call], call)

    # -- what an actor answers --------------------------------------------------------

    def _take(self, slot: Slot, call: Call) -> None:
        try:
            answer = self._cluster.answer(call)
        except LostError as exc:
            self._replace(slot, str(exc))
            return
        slot.call = None
        structure, blobs = unpack(answer)
        match structure:
            case ["open", _, together]:
                slot.is_ready, self._together = True, together
            case ["failed", name, text]:
                self._fail(slot, name, text)
            case ["report", num_done, seconds, replies, partials, states]:
                self._keep(slot, states, blobs)
                if self._job is not None:
                    self._note(self._job, slot, num_done, seconds)
                    self._take_replies(self._job, slot, replies, blobs)
                    self._take_partials(self._job, slot, partials, blobs)

    def _keep(self, slot: Slot, states: Plain, blobs: list[bytes]) -> None:
        for node, state in states:
            own = Blobs()  # nothing but the state: the rest must not be kept
            kept = None if state is None else copy_content(state, blobs, own)
            self._states.keep(node, slot.number, kept, own.items)

    def _note(self, job: Job, slot: Slot, num_done: int, seconds: float) -> None:
        if not num_done:
            return
        job.schedule.note(num_done, seconds * slot.place.workers)
        kind = job.messages[0].metadata.message_type
        if job.schedule.client_seconds is not None:
            self._seconds_by_type[kind] = job.schedule.client_seconds

    def _take_replies(
        self, job: Job, slot: Slot, replies: Plain, blobs: list[bytes]
    ) -> None:
        for number, is_error, answer in replies:
            node = slot.given.pop(number)
            if is_error:
                logger.warning("client %d failed: %s", node - FIRST_NODE_ID, answer[1])
            content = Error(*answer) if is_error else decode_content(answer, blobs)
            job.answer(number, Message(content, reply_to=job.messages[number]))

    def _take_partials(
        self, job: Job, slot: Slot, partials: Plain, blobs: list[bytes]
    ) -> None:
        number_by_node = {node: number for number, node in slot.given.items()}
        for nodes, num_bytes, content in partials:
            numbers = [number_by_node[node] for node in nodes]
            job.add(numbers)
            job.add_partial(content, blobs, nodes)
            job.num_bytes += num_bytes
            for number in numbers:
                del slot.given[number]

    # -- actors that come and go ------------------------------------------------------

    def _living(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.actor is not None]

    def _staff(self) -> None:
        """Start an actor wherever there should be one and is none."""
        taken = {(s.place.node, s.place.number) for s in self._living()}
        for place in self._find_places():
            if (place.node, place.number) not in taken:
                free = (s.number for s in self._slots if s.actor is None)
                number = next(free, len(self._slots))
                self._slots[number : number + 1] = [self._start(number, place)]
        if not self._living():
            raise TransportError("Ray: no node of the cluster has room for an actor")

    def _start(self, number: int, place: Place) -> Slot:
        actor = self._cluster.start(place)
        call = actor.open.remote(self._settings_for(place.workers))
        return Slot(number, place, actor, call)

    def _await_one(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not any(slot.is_ready for slot in self._living()):
            if not self._living():
                raise TransportError(f"Ray: no actor can start: {self._last_loss}")
            if time.monotonic() > deadline:
                raise TransportError(
                    f"Ray: no actor has started within {_START_SECONDS:.0f} s; does "
                    f"something else use the CPUs or GPUs of the cluster?"
                )
            self._wait(deadline)

    def _replace(self, slot: Slot, reason: str) -> None:
        """Start another actor in the place of one that is gone, if its node is not."""
        logger.warning("lost the actor on node %s: %s", slot.place.node, reason)
        self._last_loss = reason
        self._cluster.end(slot.actor)
        self._states.leave(slot.number)
        if self._job is not None:
            self._job.schedule.give_back(list(slot.given))
        deaths = slot.deaths + 1
        if deaths <= _MAX_DEATHS and self._cluster.is_alive(slot.place):
            self._slots[slot.number] = self._start(slot.number, slot.place)
            self._slots[slot.number].deaths = deaths
            return
        slot.actor = slot.call = None
        slot.given = {}
        if self._job is not None and not self._living():
            raise TransportError(f"Ray: no actor is left; the last one: {reason}")

    def _fail(self, slot: Slot, name: str, text: str) -> None:
        """Raise what an actor has met; another one will take its place."""
        self._cluster.end(slot.actor)
        self._states.leave(slot.number)
        slot.actor = slot.call = None
        slot.given = {}
        where = f"on node {slot.place.node} of the Ray cluster"
        if name == ConfigError.__name__:
            raise ConfigError(f"{text} ({where})")
        raise TransportError(f"{text} ({where})")
