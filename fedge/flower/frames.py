"""How a pool and its workers talk: small frames over a socket, large bytes in memory.

A frame is a structure (JSON) and the byte strings it refers to. Short ones travel in
the frame; long ones lie in a piece of memory that both sides know by a file descriptor
and are copied once by whoever writes and once by whoever reads. What a worker sends
that is larger still is given away: it stays where it was written, belongs to whoever
reads it, and goes when nobody refers to it any more.
"""

import contextlib
import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from fedge.errors import TransportError
from fedge.flower.codec import Buffer, Plain, from_text, to_text

_INLINE_BYTES = 16 * 1024  # up to here a socket is as fast as shared memory
_GIVEN_BYTES = 1 << 20  # from here on mapping pages is faster than copying them
_INLINE, _LENT, _GIVEN = range(3)  # where a byte string goes
_PREFIX_BYTES = 8
_MAX_IO_BYTES = 1 << 30  # Linux moves at most 2 GiB in one call
# Where the memory that is given away begins: pages that are not in use cost nothing.
_GIVEN_FROM = 1 << 40
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # fallocate(2)
_MAX_TAKEN = 10_000  # of one memory at a time; Linux maps 65,530 pieces for a process


class Memory:
    """Bytes that two processes share, written from the front to the back.

    Args:
        fd: descriptor of an anonymous file in memory; this object owns it.
        start: bytes at the front that are used for something else.
        gives: whether whoever writes gives large byte strings away.
    """

    def __init__(self, fd: int, start: int = 0, *, gives: bool = False) -> None:
        self.fd = fd
        self._start = self._position = start
        self._gives, self._next_given = gives, _GIVEN_FROM
        self._num_taken = 0
        self._is_closed = False

    @classmethod
    def create(cls, name: str, start: int = 0) -> "Memory":
        """Return new, empty memory; `name` is for people who look at the process."""
        return cls(os.memfd_create(name), start)

    @property
    def position(self) -> int:
        """Where the next bytes that are not given away are written."""
        return self._position

    def rewind(self) -> None:
        """Begin at the front again; what was written may be overwritten."""
        self._position = self._start

    def lent_bytes(self, blobs: Sequence[bytes]) -> int:
        """Return how much is written that may be overwritten after a `rewind`."""
        return sum(len(blob) for blob in blobs if self._place_of(blob) == _LENT)

    def put(self, blob: bytes) -> int:
        """Write a byte string that is too long for a frame; return where it begins.

        Raises:
            TransportError: there is no memory left.
        """
        if self._place_of(blob) == _LENT:
            return self.write(blob)
        begin = self._next_given
        self._write_at(begin, blob)
        self._next_given += -(-len(blob) // mmap.PAGESIZE) * mmap.PAGESIZE
        return begin

    def write(self, data: bytes) -> int:
        """Append bytes; return where they begin.

        Raises:
            TransportError: there is no memory left.
        """
        begin = self._position
        self._write_at(begin, data)
        self._position += len(data)
        return begin

    def read(self, begin: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""
        if size <= _MAX_IO_BYTES:
            return os.pread(self.fd, size, begin)
        half = size // 2
        return self.read(begin, half) + self.read(begin + half, size - half)

    def take(self, begin: int, size: int) -> memoryview:
        """Return bytes that were given away, where they are.

        They are freed together with the last object that refers to them. Of very many
        that are held at the same time, the later ones are copied.
        """
        if self._num_taken >= _MAX_TAKEN:
            copy = memoryview(self.read(begin, size))
            self._punch(begin, size)
            return copy
        self._num_taken += 1
        pages = mmap.mmap(
            self.fd,
            size,
            flags=mmap.MAP_SHARED | mmap.MAP_POPULATE,
            prot=mmap.PROT_READ,
            offset=begin,
        )
        weakref.finalize(pages, self._free, begin, size).atexit = False
        return memoryview(pages)

    def close(self) -> None:
        """Give the memory back, once the other side has closed it too."""
        self._is_closed = True
        os.close(self.fd)

    def _place_of(self, blob: bytes) -> int:
        if len(blob) <= _INLINE_BYTES:
            return _INLINE
        return _GIVEN if self._gives and len(blob) >= _GIVEN_BYTES else _LENT

    def _write_at(self, begin: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self.fd, view[:_MAX_IO_BYTES], begin)
            except OSError as exc:
                raise TransportError(
                    f"shared memory: {len(view)} more bytes are refused ({exc}); free "
                    f"memory, or use fewer workers (engine.workers)"
                ) from exc
            begin += written
            view = view[written:]

    def _free(self, begin: int, size: int) -> None:
        self._num_taken -= 1
        self._punch(begin, size)

    def _punch(self, begin: int, size: int) -> None:
        if not self._is_closed:  # else the file goes with its last page
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).fallocate(
                    self.fd,
                    _KEEP_SIZE | _PUNCH_HOLE,
                    ctypes.c_int64(begin),
                    ctypes.c_int64(size),
                )


@dataclass(frozen=True, slots=True)
class Frame:
    """What was received.

    Attributes:
        structure: the message.
        blobs: the bytes it refers to by number; long ones may be memory views.
        used_memory: whether some of them lay in memory that is written to again.
    """

    structure: Plain
    blobs: Sequence[Buffer]
    used_memory: bool


# A job's contents stay where they are until the next job: a worker reads those that its
# own clients get.
_KEPT = ["job"]


@dataclass(frozen=True, slots=True)
class _Kept(Sequence[Buffer]):
    """Byte strings that are read when they are asked for.

    Attributes:
        memory: where the long ones lie.
        places: of each, where it begins and how long it is; or the string itself.
    """

    memory: Memory
    places: Sequence[tuple[int, int] | Buffer]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Buffer: ...

    @overload
    def __getitem__(self, index: slice) -> list[Buffer]: ...

    def __getitem__(self, index: int | slice) -> Buffer | list[Buffer]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = self.places[index]
        return self.memory.read(*place) if isinstance(place, tuple) else place


def pack_frame(structure: Plain, blobs: Sequence[bytes], memory: Memory) -> bytes:
    """Return a frame for the socket; long byte strings are written into `memory`."""
    table, inline = [], []
    for blob in blobs:
        if len(blob) <= _INLINE_BYTES:
            table.append((-1, len(blob)))
            inline.append(blob)
        else:
            table.append((memory.put(blob), len(blob)))
    header, body = to_text([structure, table]), b"".join(inline)
    prefix = len(header).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return prefix + header + body


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
        places: list[tuple[int, int] | Buffer] = []
        position = 0
        for begin, size in table:
            if begin >= _GIVEN_FROM:
                places.append(self._memory.take(begin, size))
            elif begin >= 0:
                places.append((begin, size))
            else:
                places.append(body[position : position + size])
                position += size
        kept = _Kept(self._memory, places)
        is_lent = any(isinstance(place, tuple) for place in places)
        is_kept = isinstance(structure, list) and structure[:1] == _KEPT
        return Frame(structure, kept if is_kept else kept[:], is_lent)
