"""The most memory that a process and its descendants held at one moment.

Counted is the proportional set size (PSS): a page that several processes map is split
between them, so the sum over a tree counts each page of the tree once. Resident sizes
would count a library, or a model in shared memory, once for each process.

Not seen are a peak shorter than the interval between two looks, pages of shared memory
that no process of the tree has mapped, and descendants whose parent ended before them.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROC = Path("/proc")
INTERVAL_SECONDS = 0.05
# A look at gigabytes takes longer than the interval: rest ten times as long as it took.
_REST = 10.0


class Peak:
    """The largest sum seen so far.

    Attributes:
        num_bytes: PSS of the whole tree.
        num_looks: how often it was taken.
    """

    def __init__(self) -> None:
        self.num_bytes = 0
        self.num_looks = 0

    def see(self, num_bytes: int) -> None:
        """Take one more measurement into account."""
        self.num_bytes = max(self.num_bytes, num_bytes)
        self.num_looks += 1


@contextmanager
def watch_memory(
    pid: int, *, interval_seconds: float = INTERVAL_SECONDS
) -> Iterator[Peak]:
    """Watch a process and its descendants during a block of code.

    Looking walks the page tables of every process. So as not to slow these down, it
    takes a tenth of the time at most, and looks less often at large processes.

    Guarantee: there is a look at the start and one at the end of the block.

    Args:
        pid: the process at the root; it may end meanwhile.
        interval_seconds: at least so long between two looks.
    """
    peak, stop = Peak(), threading.Event()

    def look_again() -> None:
        rest_seconds = interval_seconds
        while not stop.wait(rest_seconds):
            started = time.perf_counter()
            peak.see(tree_bytes(pid))
            took_seconds = time.perf_counter() - started
            rest_seconds = max(interval_seconds, _REST * took_seconds)

    watcher = threading.Thread(target=look_again, daemon=True)
    peak.see(tree_bytes(pid))
    watcher.start()
    try:
        yield peak
    finally:
        peak.see(tree_bytes(pid))
        stop.set()
        watcher.join()


def tree_bytes(pid: int) -> int:
    """Return the PSS of a process and its descendants; 0 if there is none."""
    return sum(_pss_bytes(member) for member in tree(pid))


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = defaultdict(list)
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            children[_parent(entry)].append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children[found[-1]]
    return found


def _parent(entry: Path) -> int:
    """Return a process's parent, or -1 if it has just ended.

    Source: proc(5), /proc/pid/stat: `pid (name) state parent ...`; a name may contain
    anything, also `) `.
    """
    try:
        stat = (entry / "stat").read_text("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return int(stat.rpartition(")")[2].split()[1])


def _pss_bytes(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0  # it has ended, or become somebody else's
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0
