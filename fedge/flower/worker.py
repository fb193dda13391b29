"""What a worker process does: run clients, answer, add up.

It is told a job (the contents of a request's messages, once), then chunks of clients
to run. Replies go back one by one, or are added up here and go back as one partial sum
when the job ends. Everything a client leaves in its context goes back too, so that a
worker that dies takes nothing with it that was promised to be kept.
"""

import gc
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata

from fedge.errors import PeerError
from fedge.flower.batching import Computed, Stacked
from fedge.flower.client_runner import ClientRunner, Clients, failure
from fedge.flower.codec import Blobs, Buffer, Plain, decode_content, encode_content
from fedge.flower.frames import Frame, FrameReader, Memory, pack_frame
from fedge.flower.partial import Accumulator
from fedge.flower.plain_total import PlainTotal
from fedge.flower.processes import flush_prints
from fedge.flower.records import payload_bytes
from fedge.flower.reductions import make_reduction
from fedge.flower.worker_limits import Limits
from fedge.flower.worker_status import (
    IDLE,
    STATUS_BYTES,
    is_cancelled,
    status_of,
)
from fedge.stopwatch import Stopwatch, measure, measure_each, timed_by

_READ_BYTES = 1 << 20
_FLUSH_SECONDS = 0.02  # the pool takes the processor from a worker to read an answer
_LARGE = 1 << 20  # a reply whose memory is worth looking for
# What lies in the outbox while the pool has not read it, beside what is given away.
_MAX_UNREAD_BYTES = 8 << 20


@dataclass(slots=True)
class _Job:
    """One request, as far as this worker takes part in it."""

    structures: Plain
    blobs: Sequence[Buffer]
    kinds: Plain
    total: Accumulator | None
    num_bytes: int = 0
    _decoded: tuple[int, RecordDict] | None = None

    def content(self, number: int) -> RecordDict:
        """Return one of the contents; only the last one is kept.

        Most requests have one content for all. Of many different ones a worker holds
        only what its own clients get.
        """
        if self._decoded is None or self._decoded[0] != number:
            content = decode_content(self.structures[number], self.blobs)
            self._decoded = number, content
        return self._decoded[1]


@dataclass(slots=True)
class Worker:
    """A worker's side of the conversation.

    Attributes:
        clients: whom it can run.
        connection: to the pool.
        inbox: memory that the pool writes to.
        outbox: memory that this worker writes to.
    """

    clients: Clients
    connection: socket.socket
    inbox: Memory
    outbox: Memory
    _runner: ClientRunner = field(init=False)
    _reader: FrameReader = field(init=False)
    _waiting: deque[Frame] = field(default_factory=deque)
    _num_unread: int = 0  # frames in the outbox
    _outgoing: list[bytes] = field(default_factory=list)
    _last_flush: float = 0.0
    _job: _Job | None = None
    _watch: Stopwatch | None = None

    def __post_init__(self) -> None:
        self._runner = ClientRunner(self.clients)
        self._reader = FrameReader(self.inbox)

    def serve(self) -> None:
        """Answer until the pool hangs up."""
        while (frame := self._next()) is not None:
            if frame.structure[0] == "profile":
                self._watch = Stopwatch() if frame.structure[1] else None
            with timed_by(self._watch):
                self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        match frame.structure[0]:
            case "job":
                with measure("decoding"):
                    self._begin(frame)
            case "run":
                self._run(frame)
            case "end":
                with measure("sending"):
                    self._end()
        if not self._waiting or self._waiting[0].structure[0] != "end":
            self._flush()  # else its sum goes with what was done

    # -- what the pool asks for -----------------------------------------------------

    def _begin(self, frame: Frame) -> None:
        _, contents, kinds, reduction = frame.structure
        total = make_reduction(*reduction).start() if reduction else None
        self._job = _Job(contents, frame.blobs, kinds, total)

    def _run(self, frame: Frame) -> None:
        _, chunk, items, forget = frame.structure
        self._runner.forget(forget)
        assert self._job is not None
        started = time.perf_counter()
        added: list[tuple[int, int]] = []
        for _, same in groupby(items, key=lambda item: item[1]):  # of one content
            with measure("decoding"):
                numbers, messages = self._messages_of(same, frame.blobs)
            added += self._answer(self._job, numbers, messages)
        self._set_status(IDLE)
        with measure("sending"):
            self._finish(chunk, time.perf_counter() - started, added)

    def _messages_of(
        self, items: Iterable[Plain], blobs: Sequence[Buffer]
    ) -> tuple[list[int], list[Message]]:
        """Return clients' numbers and messages; give them the states that came."""
        assert self._job is not None
        job, numbers, messages = self._job, [], []
        for number, content, kind, node, message_id, created_at, state in items:
            if state is not None:
                self._runner.set_state(node, decode_content(state, blobs))
            metadata = metadata_of(job.kinds[kind], node, message_id, created_at)
            numbers.append(number)
            messages.append(make_message(metadata, job.content(content)))
        return numbers, messages

    def _answer(
        self, job: _Job, numbers: Sequence[int], messages: Sequence[Message]
    ) -> list[tuple[int, int]]:
        """Run clients; send their replies, or return whose were added to the sum."""

        def on_start(place: int) -> None:
            self._set_status(place if place < 0 else numbers[place])

        with measure("client code"):
            ready = self._runner.compute_together(messages, on_start=on_start)
        self._set_status(IDLE)
        nodes = [message.metadata.dst_node_id for message in messages]
        if self._add_stacked(job, nodes, ready):
            return list(zip(numbers, nodes, strict=True))
        added = []
        answers = self._runner.answers(messages, ready=ready, on_start=on_start)
        replies = measure_each("client code", answers)
        for number, message in zip(numbers, messages, strict=True):
            if is_cancelled(self.outbox):
                break  # nobody waits for those that have not begun
            reply = next(replies)
            self._set_status(IDLE)
            is_large = reply.has_content() and payload_bytes(reply.content) > _LARGE
            if (kept := self._add_up(job, message, reply)) is None:
                added.append((number, message.metadata.dst_node_id))
            else:
                with measure("sending"):
                    self._send_reply(number, kept)
                    self._flush_sometimes()
            if is_large:
                del reply, kept
                gc.collect(1)  # views of a message's records are cycles of references
        return added

    def _end(self) -> None:
        job, self._job = self._job, None
        assert job is not None
        blobs = Blobs()
        contents = job.total.contents() if job.total is not None else []
        partials = [
            [list(nodes), encode_content(content, blobs)] for nodes, content in contents
        ]
        self._send(["partials", job.num_bytes, partials, self._spent()], blobs)

    # -- what becomes of a reply ----------------------------------------------------

    def _add_stacked(self, job: _Job, nodes: Sequence[int], ready: Computed) -> bool:
        """Add all replies in one operation; say whether that was possible."""
        if not isinstance(ready, Stacked) or not isinstance(job.total, PlainTotal):
            return False
        try:
            with measure("adding up"):
                job.total.add_stacked(nodes, ready)
        except Exception:  # at least one is wrong; one by one it will be told which
            return False
        job.num_bytes += len(nodes) * payload_bytes(ready.content(0))
        return True

    def _add_up(self, job: _Job, message: Message, reply: Message) -> Message | None:
        """Add a reply to the job's sum; return what must be sent instead, if so."""
        if job.total is None or reply.has_error():
            return reply
        try:
            with measure("adding up"):
                job.total.add(reply)
        except PeerError as exc:
            return failure(message, str(exc))
        except Exception as exc:  # such as: too large; the sum is as it was
            return failure(message, f"{type(exc).__name__}: {exc}")
        job.num_bytes += payload_bytes(reply.content)
        return None

    def _send_reply(self, number: int, reply: Message) -> None:
        blobs, state = Blobs(), None
        if reply.has_error():
            answer = [reply.error.code, reply.error.reason]
        else:
            answer = encode_content(reply.content, blobs)
        found = self._runner.state_of(reply.metadata.src_node_id)
        if found is not None:
            state = encode_content(found, blobs)
        self._send(["reply", number, reply.has_error(), answer, state], blobs)

    def _finish(
        self, chunk: int, seconds: float, added: Sequence[tuple[int, int]]
    ) -> None:
        """Tell that a chunk is done, and what clients keep whose replies stay here."""
        blobs, states = Blobs(), []
        for _, node in added:
            state = self._runner.state_of(node)
            states.append(None if state is None else encode_content(state, blobs))
        flush_prints()
        numbers = [number for number, _ in added]
        self._send(["done", chunk, seconds, numbers, states, self._spent()], blobs)

    def _spent(self) -> Plain:
        """Return what was spent since this was last told; None if nobody asks."""
        if self._watch is None:
            return None
        spent = self._watch.take().here
        return [spent.seconds_by_name, spent.cpu_seconds]

    # -- the connection -------------------------------------------------------------

    def _set_status(self, what: int) -> None:
        os.pwrite(self.outbox.fd, status_of(what), 0)

    def _send(self, structure: Plain, blobs: Blobs) -> None:
        """Add a frame to those that go with the next `_flush`."""
        if num_lent := self.outbox.lent_bytes(blobs.items):
            self._make_room(num_lent)
            self._num_unread += 1
        self._outgoing.append(pack_frame(structure, blobs.items, self.outbox))

    def _make_room(self, num_bytes: int) -> None:
        """Wait until the outbox may be written to: small answers do not wait."""
        if self._num_unread and self.outbox.position + num_bytes > _MAX_UNREAD_BYTES:
            self._flush()
            while self._num_unread:
                self._receive()
        if not self._num_unread:
            self.outbox.rewind()

    def _flush_sometimes(self) -> None:
        """Send what there is unless that was done a moment ago."""
        if time.monotonic() >= self._last_flush + _FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Send what there is, in one piece: whatever is sent wakes the pool."""
        self._last_flush = time.monotonic()
        if self._outgoing:
            self.connection.sendall(b"".join(self._outgoing))
            self._outgoing.clear()

    def _next(self) -> Frame | None:
        """Return the next frame that asks for something; None when all is over."""
        while not self._waiting:
            if not self._receive():
                return None
        return self._waiting.popleft()

    def _receive(self) -> bool:
        data = self.connection.recv(_READ_BYTES)
        if not data:
            if self._num_unread:
                raise ConnectionResetError("the pool is gone")
            return False
        self._reader.feed(data)
        while (frame := self._reader.next()) is not None:
            if frame.structure[0] == "read":
                self._num_unread -= 1
            else:
                self._waiting.append(frame)
        return True


def run_worker(
    clients: Clients, limits: Limits, connection: socket.socket, inbox: int, outbox: int
) -> None:
    """Be a worker until the pool hangs up.

    Args:
        clients: whom it can run.
        limits: what it may use.
        connection: to the pool.
        inbox: descriptor of the memory to read from.
        outbox: descriptor of the memory to write to.
    """
    limits.apply()
    # A process that a client forks must not keep the pool from seeing this one end.
    os.register_at_fork(after_in_child=connection.close)
    memory = Memory(outbox, start=STATUS_BYTES, gives=True)
    Worker(clients, connection, Memory(inbox), memory).serve()


def metadata_of(kind: Plain, node: int, message_id: str, created_at: float) -> Metadata:
    """Return the metadata of a message to a client; see `job` for `kind`."""
    run_id, source, group_id, ttl, message_type, source_task, task = kind
    return Metadata(
        run_id=run_id,
        message_id=message_id,
        src_node_id=source,
        dst_node_id=node,
        reply_to_message_id="",
        group_id=group_id,
        created_at=created_at,
        ttl=ttl,
        message_type=message_type,
        src_task_id=source_task,
        dst_task_id=task,
    )
