"""What a worker does at the moment, and whether anybody waits for it.

At the front of the memory that a worker writes to (`frames.Memory`), so that the pool
can look while the worker computes, also after it has died.
"""

import os
import time

from fedge.flower.frames import Memory

# What a worker does at the moment, at the front of the memory it writes to.
STATUS_BYTES = 24
_CANCEL_AT = 16  # where the pool says that nobody waits any more
IDLE = -1


def status_of(what: int) -> bytes:
    """Return a status: which client runs (or `IDLE`, `TOGETHER`), and since when."""
    now = time.monotonic_ns()
    return what.to_bytes(8, "little", signed=True) + now.to_bytes(8, "little")


def read_status(memory: Memory) -> tuple[int, float]:
    """Return which client runs, and since when on the monotonic clock, seconds."""
    data = os.pread(memory.fd, STATUS_BYTES, 0)
    what = int.from_bytes(data[:8], "little", signed=True)
    return what, int.from_bytes(data[8:16], "little") / 1e9


def cancel(memory: Memory, *, on: bool) -> None:
    """Tell a worker not to begin with any more clients of its chunks, or to go on."""
    os.pwrite(memory.fd, b"\1" if on else b"\0", _CANCEL_AT)


def is_cancelled(memory: Memory) -> bool:
    """Say whether the pool has told this worker not to begin with more clients."""
    return os.pread(memory.fd, 1, _CANCEL_AT) == b"\1"
