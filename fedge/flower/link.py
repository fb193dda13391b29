"""The pool's end of its connection to one worker, and what that worker has to do."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedge.flower.codec import Buffer, Plain
from fedge.flower.frames import Frame, FrameReader, Memory
from fedge.flower.processes import Nursery
from fedge.flower.worker_status import (
    IDLE,
    STATUS_BYTES,
    cancel,
    read_status,
    status_of,
)

_READ_BYTES = 1 << 20


@dataclass(slots=True)
class Link:
    """One worker, seen from the pool. Clients go by their number in the present job.

    Attributes:
        number: its place in the pool.
        pid: its process.
        connection: to it; never blocks.
        uplink: memory that it writes to.
        chunks: what it was given and has not finished: by chunk, each client's node.
        unsent: clients whose replies are in its sum, and their nodes.
        knows_job: whether it was told the present job.
        is_ending: whether it was asked for its sum.
        is_profiled: whether it was told to say where its time goes.
        ended_because: why the pool ended it, in words.
    """

    number: int
    pid: int
    connection: socket.socket
    uplink: Memory
    chunks: dict[int, dict[int, int]] = field(default_factory=dict)
    unsent: dict[int, int] = field(default_factory=dict)
    knows_job: bool = False
    is_ending: bool = False
    is_profiled: bool = False
    ended_because: str = ""
    _reader: FrameReader = field(init=False)
    _to_send: bytearray = field(default_factory=bytearray)
    _serial: int = 0
    _unsent_states: list[tuple[int, Plain, Sequence[Buffer]]] = field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        self._reader = FrameReader(self.uplink)

    @classmethod
    def start(cls, number: int, nursery: Nursery, downlink: Memory) -> "Link":
        """Start a worker and return the link to it."""
        ours, theirs = socket.socketpair()
        uplink = Memory.create(f"fedge-uplink-{number}", start=STATUS_BYTES)
        os.pwrite(uplink.fd, status_of(IDLE), 0)
        cancel(uplink, on=False)
        try:
            pid = nursery.start(number, theirs, [downlink.fd, uplink.fd])
        finally:
            theirs.close()
        ours.setblocking(False)
        return cls(number, pid, ours, uplink)

    def close(self) -> None:
        """Close this end."""
        self.connection.close()
        self.uplink.close()

    # -- bytes ----------------------------------------------------------------------

    def add_frame(self, data: bytes) -> None:
        """Take bytes that go with the next `send`."""
        self._to_send += data

    def send(self) -> bool:
        """Send what the worker takes without waiting; say whether that was all."""
        try:
            while self._to_send:
                del self._to_send[: self.connection.send(self._to_send)]
        except BlockingIOError:
            return False
        except OSError:  # it is gone; reading will tell
            self._to_send.clear()
        return True

    def receive(self) -> list[Frame] | None:
        """Return the frames that have arrived; None if the worker is gone."""
        try:
            data = self.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        self._reader.feed(data)
        return list(iter(self._reader.next, None))

    def status(self) -> tuple[int, float]:
        """Return which client it runs, and since when on the monotonic clock."""
        return read_status(self.uplink)

    # -- what it has to do ----------------------------------------------------------

    @property
    def running(self) -> dict[int, int]:
        """The clients of the chunk that it works on."""
        return next(iter(self.chunks.values()), {})

    @property
    def is_idle(self) -> bool:
        """Whether it owes nothing."""
        return not self.chunks and not self.is_ending

    def begin_chunk(self, clients: dict[int, int]) -> int:
        """Note what it is given; return the chunk's number."""
        self._serial += 1
        self.chunks[self._serial] = clients
        return self._serial

    def end_chunk(self, chunk: int) -> dict[int, int]:
        """Note that a chunk is done; return its clients."""
        return self.chunks.pop(chunk)

    def node_of(self, client: int) -> int:
        """Return the node of a client in one of its chunks."""
        return next(part[client] for part in self.chunks.values() if client in part)

    def add(
        self, client: int, node: int, state: Plain, blobs: Sequence[Buffer]
    ) -> None:
        """Note that a reply is in its sum; what the client keeps counts later."""
        self.unsent[client] = node
        self._unsent_states.append((node, state, blobs))

    def hand_over(self) -> list[tuple[int, Plain, Sequence[Buffer]]]:
        """Note that its sum was received; return what the clients in it keep."""
        states = self._unsent_states
        self.forget_job()
        return states

    def forget_job(self) -> None:
        """Begin a new job."""
        cancel(self.uplink, on=False)
        self.knows_job = self.is_ending = False
        self.unsent, self._unsent_states = {}, []
