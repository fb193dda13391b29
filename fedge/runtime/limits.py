"""What a process allows itself before it opens somebody else's model (POSIX)."""

import resource
import sys
from pathlib import Path

# Addresses that Python, numpy and ONNX Runtime reserve without ever using them. A tiny
# model needs 131 MiB of addresses but 50 of memory (x86-64, Python 3.11, 1 thread).
ADDRESS_HEADROOM_MB = 512
# One result line with two full reference arrays fits; a flood of output does not.
MAX_OUTPUT_BYTES = 8 * 1024 * 1024
MAX_OPEN_FILES = 64


def limit_process(*, memory_mb: int, cpu_seconds: int) -> None:
    """Limit this process for good: addresses, CPU time, file size, open files.

    The kernel kills a process that exceeds `cpu_seconds`, and refuses memory beyond
    `memory_mb` plus the headroom for reserved addresses. macOS does not enforce a limit
    on addresses; there the peak that is reported afterwards decides alone.

    Args:
        memory_mb: memory that the work may use, in MiB.
        cpu_seconds: CPU time, all threads together.
    """
    if sys.platform != "darwin":
        _limit(resource.RLIMIT_AS, (memory_mb + ADDRESS_HEADROOM_MB) << 20)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)


def _limit(kind: int, value: int) -> None:
    """Lower a limit; one that is already tighter stays."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def peak_memory_mb() -> float:
    """Return the largest resident size this program has had, in MiB.

    Linux: not `ru_maxrss`, which a child inherits from the process that started it.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this kernel does not report VmHWM")
