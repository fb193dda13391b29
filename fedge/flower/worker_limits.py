"""What a worker process may use, and how it uses memory."""

import contextlib
import ctypes
import os
import resource
import sys
from dataclasses import dataclass

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # more is refused


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use.

    Attributes:
        threads: of one client's computation.
        memory_bytes: private memory beyond what the worker starts with; 0: no limit.
    """

    threads: int = 1
    memory_bytes: int = 0

    def apply(self) -> None:
        """Limit this process."""
        _keep_freed_memory()
        _be_a_batch_process()
        os.environ["OMP_NUM_THREADS"] = str(self.threads)
        torch = sys.modules.get("torch")
        if torch is not None:  # an app that imports it later finds the variable above
            torch.set_num_threads(self.threads)
        if self.memory_bytes:
            with open("/proc/self/statm", encoding="ascii") as file:
                used_pages = int(file.read().split()[5])  # data and stack
            allowed = used_pages * resource.getpagesize() + self.memory_bytes
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            if hard != resource.RLIM_INFINITY:
                allowed = min(allowed, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _keep_freed_memory() -> None:
    """Let malloc keep what is freed, where it is glibc's.

    By default arrays of more than 128 kB go back to the system when they are freed, and
    each new one is cleared by the system page by page: a good part of a training step.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _be_a_batch_process() -> None:
    """Do not take the processor from whoever wakes this process.

    The coordinator wakes one worker after the other; as an interactive process the
    first would run in its place before the second is woken.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
