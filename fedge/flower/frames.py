"""How a pool and its workers talk: small frames over a socket, large bytes in memory.

A frame is a structure (JSON) and the byte strings it refers to. Short ones travel in
the frame; long ones lie in a piece of memory that both sides know by a file descriptor
and are copied once by whoever writes and once by whoever reads.
"""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, overload

from fedge.errors import TransportError
from fedge.flower.codec import Plain, from_text, to_text

_INLINE_BYTES = 16 * 1024  # up to here a socket is as fast as shared memory
_PREFIX_BYTES = 8
_MAX_IO_BYTES = 1 << 30  # Linux moves at most 2 GiB in one call


class Memory:
    """Bytes that two processes share, written from the front to the back.

    Args:
        fd: descriptor of an anonymous file in memory; this object owns it.
        start: bytes at the front that are used for something else.
    """

    def __init__(self, fd: int, start: int = 0) -> None:
        self.fd = fd
        self._start = self._position = start

    @classmethod
    def create(cls, name: str, start: int = 0) -> "Memory":
        """Return new, empty memory; `name` is for people who look at the process."""
        return cls(os.memfd_create(name), start)

    @property
    def position(self) -> int:
        """Where the next bytes are written."""
        return self._position

    def rewind(self) -> None:
        """Begin at the front again; what was written may be overwritten."""
        self._position = self._start

    def write(self, data: bytes) -> int:
        """Append bytes; return where they begin.

        Raises:
            TransportError: there is no memory left.
        """
        begin, view = self._position, memoryview(data)
        while view:
            try:
                written = os.pwrite(self.fd, view[:_MAX_IO_BYTES], self._position)
            except OSError as exc:
                raise TransportError(
                    f"shared memory: {len(view)} more bytes are refused ({exc}); free "
                    f"memory, or use fewer workers (engine.workers)"
                ) from exc
            self._position += written
            view = view[written:]
        return begin

    def read(self, begin: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""
        if size <= _MAX_IO_BYTES:
            return os.pread(self.fd, size, begin)
        half = size // 2
        return self.read(begin, half) + self.read(begin + half, size - half)

    def lend(self, end: int) -> memoryview:
        """Return the bytes up to `end` where they are, until somebody writes there."""
        return memoryview(mmap.mmap(self.fd, end, prot=mmap.PROT_READ))

    def close(self) -> None:
        """Give the memory back, once the other side has closed it too."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Frame:
    """What was received.

    Attributes:
        structure: the message.
        blobs: the bytes it refers to by number.
        used_memory: whether some of them lay in shared memory.
    """

    structure: Plain
    blobs: Sequence[bytes]
    used_memory: bool


# A sum is as large as a model of float64 and is added to another at once: its bytes are
# lent where they lie, and must be used before the writer is told that they were read.
_LENT = ["partials"]
# A job's contents stay where they are until the next job: a worker reads those that its
# own clients get.
_KEPT = ["job"]


@dataclass(frozen=True, slots=True)
class _Kept(Sequence[bytes]):
    """Byte strings that are read when they are asked for.

    Attributes:
        memory: where the long ones lie.
        places: of each, where it begins and how long it is; or the string itself.
    """

    memory: Memory
    places: Sequence[tuple[int, int] | bytes]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = self.places[index]
        return place if isinstance(place, bytes) else self.memory.read(*place)


def pack_frame(structure: Plain, blobs: Sequence[bytes], memory: Memory) -> bytes:
    """Return a frame for the socket; long byte strings are written into `memory`."""
    table, inline = [], []
    for blob in blobs:
        if len(blob) <= _INLINE_BYTES:
            table.append((-1, len(blob)))
            inline.append(blob)
        else:
            table.append((memory.write(blob), len(blob)))
    header, body = to_text([structure, table]), b"".join(inline)
    prefix = len(header).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return prefix + header + body


def needs_memory(blobs: Sequence[bytes]) -> bool:
    """Say whether a frame with these byte strings would write to shared memory."""
    return any(len(blob) > _INLINE_BYTES for blob in blobs)


class FrameReader:
    """Cuts a stream of bytes into frames.

    Args:
        memory: where long byte strings lie.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what the socket has delivered."""
        self._buffer += data

    def next(self) -> Frame | None:
        """Return the next whole frame; None if more bytes are needed."""
        if len(self._buffer) < _PREFIX_BYTES:
            return None
        header_bytes = int.from_bytes(self._buffer[:4], "little")
        body_bytes = int.from_bytes(self._buffer[4:8], "little")
        end = _PREFIX_BYTES + header_bytes + body_bytes
        if len(self._buffer) < end:
            return None
        middle = _PREFIX_BYTES + header_bytes
        structure, table = from_text(bytes(self._buffer[_PREFIX_BYTES:middle]))
        body = bytes(self._buffer[middle:end])
        del self._buffer[:end]
        return self._frame(structure, table, body)

    def _frame(
        self, structure: Plain, table: Sequence[tuple[int, int]], body: bytes
    ) -> Frame:
        places: list[tuple[int, int] | bytes] = []
        position = 0
        for begin, size in table:
            if begin >= 0:
                places.append((begin, size))
            else:
                places.append(body[position : position + size])
                position += size
        kept = _Kept(self._memory, places)
        ends = [begin + size for begin, size in table if begin >= 0]
        kind = structure[:1] if isinstance(structure, list) else None
        if kind == _KEPT:
            return Frame(structure, kept, bool(ends))
        if kind == _LENT and ends:
            lent = self._memory.lend(max(ends))
            blobs = [
                place if isinstance(place, bytes) else lent[place[0] : sum(place)]
                for place in places
            ]
            return Frame(structure, cast(list[bytes], blobs), used_memory=True)
        return Frame(structure, kept[:], bool(ends))
