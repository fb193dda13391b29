"""A pool of resident worker processes that run the clients of a LocalGrid.

One request is a job: its contents go once into memory that all workers read, then each
worker is given clients in chunks (`schedule`). Replies are yielded in the order of the
messages, however they arrive; with a reduction each worker hands over one sum instead.

What a client keeps in its context stays in the worker that ran it, which is preferred
when the client is asked again, and the pool keeps a copy: a client can move to an idle
worker, and survives the worker. A worker that dies, or computes one client for too
long, is replaced; that client gets an error reply, and what the worker had not handed
over is computed again, from what the clients kept before.
"""

import contextlib
import os
import selectors
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from flwr.app import Error, Message

from fedge.flower.batching import together_of
from fedge.flower.casualties import account_for_death, end_slow_clients
from fedge.flower.client_runner import Clients
from fedge.flower.client_states import ClientStates
from fedge.flower.codec import Plain, decode_content
from fedge.flower.frames import Frame, Memory, pack_frame
from fedge.flower.giving import give_chunk
from fedge.flower.job import Job, make_job
from fedge.flower.link import Link
from fedge.flower.partial import Reduction
from fedge.flower.processes import Nursery
from fedge.flower.schedule import Schedule
from fedge.flower.worker import run_worker
from fedge.flower.worker_limits import Limits
from fedge.flower.worker_status import cancel
from fedge.stopwatch import current_watch, measure

_CHUNKS_AHEAD = 2  # one that runs and one that waits, so a worker is never idle
_MAX_WAIT_SECONDS = 3600.0  # of one look at the sockets; epoll has a limit
# An abandoned client is waited for so long: its worker has the data in its caches.
_PATIENCE_SECONDS = 1.0
_LOOK_SECONDS = 0.1  # how often a client's time limit is checked


class Pool:
    """Worker processes for the clients of one simulation.

    Args:
        clients: whom they run.
        num_workers: how many processes.
        limits: what each may use.
        client_seconds: a client that computes for longer is ended; 0: no limit.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        num_workers: int,
        limits: Limits,
        client_seconds: float = 0.0,
    ) -> None:
        self._client_seconds = client_seconds
        self._together = clients.batching and together_of(clients.app) is not None
        self._seconds_by_type: dict[str, float] = {}
        self._states = ClientStates()
        self._job: Job | None = None
        self._downlink = Memory.create("fedge-downlink")
        self._nursery = Nursery(partial(_start_worker, clients, limits))
        self._selector = selectors.DefaultSelector()
        self._links: list[Link] = []
        self._finalizer = weakref.finalize(
            self, _close, self._nursery, self._links, self._downlink, self._selector
        )
        for number in range(num_workers):
            self._links.append(self._start(number))

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers, for whoever measures them."""
        return [link.pid for link in self._links]

    def close(self) -> None:
        """End all workers."""
        self._finalizer()

    def stream(
        self,
        messages: Sequence[Message],
        *,
        deadline: float | None = None,
        reduction: Reduction | None = None,
        on_progress: Callable[[int, int], None] = lambda _done, _asked: None,
    ) -> Iterator[Message]:
        """Run clients and yield their replies in the order of the messages.

        Args:
            messages: at most one to each client.
            deadline: `time.monotonic()` after which nobody is waited for.
            reduction: add replies up in the workers; the sums are yielded last.
            on_progress: told how many clients were computed, of how many, whenever
                workers have answered.

        Raises:
            TransportError: workers die without a client being the reason.
        """
        if self._job is not None:  # of a request whose reader does something else now
            self._finish_unread(self._job)
        if not self._settle(deadline):
            return
        with measure("sending"):
            self._job = job = self._new_job(messages, reduction)
        try:
            yield from self._collect(job, deadline, on_progress)
        finally:
            if self._job is job:
                self._job = None

    def _new_job(self, messages: Sequence[Message], reduction: Reduction | None) -> Job:
        self._downlink.rewind()
        watch = current_watch()
        if watch is not None:
            watch.num_workers = len(self._links)
        schedule = Schedule(
            [self._states.home_of(m.metadata.dst_node_id) for m in messages],
            num_workers=len(self._links),
            client_seconds=self._seconds_by_type.get(messages[0].metadata.message_type),
            together=self._together,
        )
        return make_job(messages, reduction, schedule, self._downlink)

    # -- the loop -------------------------------------------------------------------

    def _collect(
        self,
        job: Job,
        deadline: float | None,
        on_progress: Callable[[int, int], None],
    ) -> Iterator[Message]:
        num_told = 0
        while self._job is job and not self._is_over(job):
            if deadline is not None and time.monotonic() >= deadline:
                self._stop(job)
                break
            with measure("sending"):
                self._give_work(job)
            yield from job.ready()
            if self._job is job and not self._is_over(job):
                self._wait(deadline)
            if job.num_done != num_told:
                num_told = job.num_done
                on_progress(num_told, len(job.messages))
        yield from job.ready()
        yield from job.rest()
        yield from job.partials()

    def _finish_unread(self, job: Job) -> None:
        """Compute a request to its end; its reader finds the replies later."""
        while not self._is_over(job):
            self._give_work(job)
            if not self._is_over(job):
                self._wait(None)
        self._job = None

    def _is_over(self, job: Job) -> bool:
        """Whether all are done and nothing is left in a worker's sum."""
        return job.is_done and not any(link.unsent for link in self._links)

    def _give_work(self, job: Job) -> None:
        for _ in range(_CHUNKS_AHEAD):
            for link in self._links:
                has_room = len(link.chunks) < _CHUNKS_AHEAD and not link.is_ending
                if has_room and job.schedule:
                    give_chunk(job, link, self._states, self._downlink)
        if job.reduction and not job.schedule:
            self._ask_for_sums()
        self._send_to_busy()

    def _ask_for_sums(self) -> None:
        """Ask workers for their sums, as soon as they have done what they were given.

        If somebody else's clients come back, they begin new ones.
        """
        for link in self._links:
            if (link.chunks or link.unsent) and not link.is_ending:
                link.is_ending = True
                link.add_frame(pack_frame(["end"], [], self._downlink))

    def _stop(self, job: Job) -> None:
        """Start nobody any more; with a reduction, wait for those who run."""
        for link in self._links:
            cancel(link.uplink, on=True)
        while job.reduction and any(link.chunks or link.unsent for link in self._links):
            self._ask_for_sums()
            self._send_to_busy()
            self._wait(None)

    def _settle(self, deadline: float | None = None) -> bool:
        """Make all workers idle; say whether that was possible in time.

        What an earlier, abandoned request has left them is not begun any more. Who
        still computes for it after a moment is ended.
        """
        busy = [link for link in self._links if not link.is_idle]
        for link in busy:
            cancel(link.uplink, on=True)
        patience = time.monotonic() + _PATIENCE_SECONDS
        while not all(link.is_idle for link in self._links):
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            if now >= patience:
                self._end_busy()
                patience = float("inf")
            self._wait(min(patience, deadline or patience))
        for link in self._links:
            link.forget_job()
        return True

    def _end_busy(self) -> None:
        for link in self._links:
            if not link.is_idle:
                link.ended_because = "nobody waits for it any more"
                os.kill(link.pid, signal.SIGKILL)

    def _wait(self, deadline: float | None) -> None:
        """Wait for a worker, and take what it sent."""
        seconds = None
        if deadline is not None:
            seconds = min(max(0.0, deadline - time.monotonic()), _MAX_WAIT_SECONDS)
        if self._client_seconds:
            seconds = _LOOK_SECONDS if seconds is None else min(seconds, _LOOK_SECONDS)
        with measure("waiting for workers"):
            ready = self._selector.select(seconds)
        with measure("receiving"):
            for key, events in ready:
                link: Link = key.data
                if events & selectors.EVENT_WRITE:
                    self._send(link)
                if events & selectors.EVENT_READ:
                    self._receive(link)
        if self._client_seconds:
            end_slow_clients(self._links, self._client_seconds)

    # -- one worker -----------------------------------------------------------------

    def _start(self, number: int) -> Link:
        link = Link.start(number, self._nursery, self._downlink)
        self._selector.register(link.connection, selectors.EVENT_READ, link)
        return link

    def _send(self, link: Link) -> None:
        """Send what was added; in one piece, since whatever is sent wakes a worker."""
        wanted = selectors.EVENT_READ
        if not link.send():
            wanted |= selectors.EVENT_WRITE
        if self._selector.get_key(link.connection).events != wanted:
            self._selector.modify(link.connection, wanted, link)

    def _send_to_busy(self) -> None:
        """Send what was added for workers that may wait for it.

        What was added for an idle one goes with its next work: sending would wake it.
        """
        for link in self._links:
            if not link.is_idle:
                self._send(link)

    def _receive(self, link: Link) -> None:
        frames = link.receive()
        if frames is None:
            self._replace(link)
            return
        for frame in frames:
            self._take(link, frame)
        self._send_to_busy()

    def _take(self, link: Link, frame: Frame) -> None:
        match frame.structure:
            case ["reply", *_]:
                self._take_reply(link, frame)
            case ["done", *_]:
                self._take_chunk(link, frame)
            case ["partials", *_]:
                self._take_partials(link, frame)
        if frame.used_memory:
            link.add_frame(pack_frame(["read"], [], self._downlink))

    def _take_reply(self, link: Link, frame: Frame) -> None:
        _, number, is_error, answer, state = frame.structure
        self._states.keep(link.node_of(number), link.number, state, frame.blobs)
        job = self._job
        if job is None:  # nobody waits for it any more
            return
        content = Error(*answer) if is_error else decode_content(answer, frame.blobs)
        job.answer(number, Message(content, reply_to=job.messages[number]))

    def _take_chunk(self, link: Link, frame: Frame) -> None:
        _, chunk, seconds, added, states, spent = frame.structure
        _note_spent(spent)
        clients, job = link.end_chunk(chunk), self._job
        for number, state in zip(added, states, strict=True):
            link.add(number, clients[number], state, frame.blobs)
        if job is None:
            return
        job.add(added)
        job.schedule.note(len(clients), seconds)
        kind = job.messages[0].metadata.message_type
        if job.schedule.client_seconds is not None:
            self._seconds_by_type[kind] = job.schedule.client_seconds

    def _take_partials(self, link: Link, frame: Frame) -> None:
        for node, state, blobs in link.hand_over():
            self._states.keep(node, link.number, state, blobs)
        _, num_bytes, partials, spent = frame.structure
        _note_spent(spent)
        if self._job is not None:
            self._job.num_bytes += num_bytes
            for nodes, structure in partials:
                self._job.add_partial(structure, frame.blobs, nodes)

    def _replace(self, link: Link) -> None:
        """Start another worker in the place of one that ended."""
        self._selector.unregister(link.connection)
        what, _ = link.status()
        with contextlib.suppress(ProcessLookupError):
            os.kill(link.pid, signal.SIGKILL)  # it may have closed its socket only
        reason = self._nursery.reap(link.pid)
        self._states.leave(link.number)
        link.close()
        self._links[link.number] = self._start(link.number)
        if self._job is not None:
            # What it had added up is gone with it and is computed again.
            self._job.take_back(link.unsent)
            given = [number for chunk in link.chunks.values() for number in chunk]
            lost = [*link.unsent, *(n for n in given if n not in self._job.seen)]
            account_for_death(self._job, lost, what, link.ended_because or reason)


def _start_worker(clients: Clients, limits: Limits, number: int, *ends: object) -> None:
    run_worker(clients, limits, *ends)  # type: ignore[arg-type]  # from the nursery


def _note_spent(spent: Plain) -> None:
    """Pass on what a worker says it spent, if that is of interest."""
    watch = current_watch()
    if watch is not None and spent is not None:
        seconds_by_name, cpu_seconds = spent
        watch.add_workers(seconds_by_name, cpu_seconds)


def _close(
    nursery: Nursery,
    links: list[Link],
    downlink: Memory,
    selector: selectors.BaseSelector,
) -> None:
    selector.close()
    nursery.close()
    for link in links:
        link.close()
    downlink.close()
