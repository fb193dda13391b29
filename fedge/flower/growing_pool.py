"""A pool whose request grows while it is computed: what an actor has (`ray_actor`).

Somebody else decides which clients are computed here and hands them over bit by bit,
so the pool tells when it could take more rather than when all is done.
"""

import time
from collections.abc import Sequence

from flwr.app import Message

from fedge.flower.client_runner import Clients
from fedge.flower.client_states import ClientStates
from fedge.flower.codec import Plain
from fedge.flower.frames import pack_frame
from fedge.flower.job import Job
from fedge.flower.pool import Pool
from fedge.flower.reductions import make_reduction
from fedge.flower.schedule import Schedule
from fedge.flower.worker_limits import Limits

MESSAGE_TYPE = 4  # its place in a kind (`job`)


class GrowingPool(Pool):
    """Worker processes for clients that are asked for bit by bit.

    Args:
        clients: whom they run.
        num_workers: how many processes.
        limits: what each may use.
        client_seconds: a client that computes for longer is ended; 0: no limit.
        states: of the clients; who runs them elsewhere reads and changes it.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        num_workers: int,
        limits: Limits,
        client_seconds: float,
        states: ClientStates,
    ) -> None:
        super().__init__(
            clients,
            num_workers=num_workers,
            limits=limits,
            client_seconds=client_seconds,
        )
        self._states = states
        self._is_open = False

    @property
    def computes_together(self) -> bool:
        """Whether several clients of a worker are computed as one."""
        return self._together

    def begin(self, structure: Plain, blobs: Sequence[bytes]) -> Job:
        """Begin a request; an earlier one is over, what its clients keep is kept.

        Args:
            structure: what its messages have in common (`job.Described`).
            blobs: the bytes of the structure.
        """
        self._job = None
        self._settle()
        self._downlink.rewind()
        _, _, kinds, reduction = structure
        schedule = Schedule(
            [],
            num_workers=len(self._links),
            client_seconds=self._seconds_by_type.get(kinds[0][MESSAGE_TYPE]),
        )
        frame = pack_frame(structure, blobs, self._downlink)
        adds_up = make_reduction(*reduction) if reduction else None
        self._is_open, self._job = True, Job([], adds_up, schedule, frame, [], [])
        return self._job

    def give(
        self,
        messages: Sequence[Message],
        contents: Sequence[int],
        kinds: Sequence[int],
        groups: Sequence[int],
    ) -> None:
        """Take more clients into the request that was begun.

        Args:
            messages: to them, without contents.
            contents: for each, which of the request's contents it has.
            kinds: for each, of which of the request's kinds it is.
            groups: if clients are computed together, how many at a time.
        """
        job = self._job
        assert job is not None
        self._is_open = True
        numbers = job.extend(messages, contents, kinds)
        if not self._together:
            homes = [self._states.home_of(m.metadata.dst_node_id) for m in messages]
            job.schedule.add(numbers, homes)
            return
        for size in groups:
            job.schedule.add_group(numbers[:size])
            numbers = numbers[size:]

    def advance(self, deadline: float | None) -> None:
        """Let workers compute until all clients are in their hands.

        They have something to do for a while then: it is time to give more.

        Args:
            deadline: `time.monotonic()` after which nobody is waited for.

        Raises:
            TransportError: workers die without a client being the reason.
        """
        job = self._job
        assert job is not None
        self._give_work(job)
        while job.schedule and not _is_past(deadline):
            self._wait(deadline)
            self._give_work(job)
        self._wait(time.monotonic())  # replies may be there

    def finish(self, deadline: float | None) -> bool:
        """Let workers compute until there is something to tell; say if that is all.

        No more clients come, as it seems; `give` opens the request again.

        Args:
            deadline: `time.monotonic()` after which nobody is waited for.

        Raises:
            TransportError: workers die without a client being the reason.
        """
        job, self._is_open = self._job, False
        assert job is not None
        while not (self._is_over(job) or job.answers or _is_past(deadline)):
            self._give_work(job)
            if not self._is_over(job):
                self._wait(deadline)
        return self._is_over(job)

    def conclude(self) -> bool:
        """Start nobody any more, and wait for the sums of who was started."""
        job, self._is_open = self._job, False
        assert job is not None
        job.schedule.drop()
        while any(link.chunks or link.unsent for link in self._links):
            self._give_work(job)
            self._wait(None)
        return True

    def _ask_for_sums(self) -> None:
        """Ask only when nobody will be added any more."""
        if not self._is_open:
            super()._ask_for_sums()


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
