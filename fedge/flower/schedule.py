"""Which clients a worker computes next, and how many at a time.

A chunk takes about the same time whatever the clients cost: many cheap ones, one by one
the expensive ones, so that neither the hand-over nor the wait at the end counts. What a
client costs is learned from the chunks that are done.

Clients that are computed together are the exception: the last bits of a stacked
computation depend on who is in it, so their groups are a function of the request alone,
and a run is the same whatever the time, and whatever the number of workers.

Pure: no clock, no process.
"""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate

CHUNK_SECONDS = 0.05  # handing a chunk over costs about 0.2 ms
_MAX_CHUNK = 64  # bounds what clients that are computed together need at a time
_FIRST_PARTS = 4  # as long as costs are unknown: a share in so many chunks
_SMOOTHING = 0.5
# Clients computed together: as many as still make each cheaper, and an even number of
# groups, for an even number of workers.
_MAX_TOGETHER = 32
_GROUPS_MULTIPLE = 2


class Schedule:
    """The clients of one request that have not been given to a worker yet.

    Guarantee: each is given out once, and again only after `give_back`.

    Args:
        homes: for each client the worker that holds its state; None for any.
        num_workers: workers that ask.
        client_seconds: what a client cost so far; None if that is not known.
        together: whether clients may be computed together.
        chunk_seconds: what a chunk is meant to take.
        max_chunk: clients in a chunk at most.
    """

    def __init__(
        self,
        homes: Sequence[int | None],
        *,
        num_workers: int,
        client_seconds: float | None,
        together: bool = False,
        chunk_seconds: float = CHUNK_SECONDS,
        max_chunk: int = _MAX_CHUNK,
    ) -> None:
        self.client_seconds = client_seconds
        self._chunk_seconds, self._max_chunk = chunk_seconds, max_chunk
        self._num_workers = num_workers
        self._share = 0
        self._alone: deque[int] = deque()
        self._groups = deque(_groups(len(homes)) if together else [])
        self._free: deque[int] = deque()
        self._at_home: list[deque[int]] = [deque() for _ in range(num_workers)]
        self.add([] if together else range(len(homes)), [] if together else homes)

    def __len__(self) -> int:
        """Return how many clients are left."""
        queues = (self._alone, self._free, *self._at_home)
        return sum(map(len, queues)) + sum(map(len, self._groups))

    def take(self, worker: int) -> list[int]:
        """Return what this worker computes next; empty if nothing is left."""
        if self._alone:
            return [self._alone.popleft()]
        if self._groups:
            return self._groups.popleft()
        size = self._chunk_size()
        chunk: list[int] = []
        for queue in (self._at_home[worker], self._free):
            while queue and len(chunk) < size:
                chunk.append(queue.popleft())
        return chunk or self._steal(size)

    def give_back(self, numbers: Sequence[int], *, alone: bool = False) -> None:
        """Take clients back that were not computed; `alone`: never together again."""
        (self._alone if alone else self._free).extendleft(reversed(numbers))

    def add(self, numbers: Sequence[int], homes: Sequence[int | None]) -> None:
        """Take more clients, and the workers that hold their states."""
        for number, home in zip(numbers, homes, strict=True):
            (self._free if home is None else self._at_home[home]).append(number)
        self._share = -(-len(self) // self._num_workers)

    def add_group(self, numbers: Sequence[int]) -> None:
        """Take more clients, to be computed together."""
        self._groups.append(list(numbers))

    def drop(self) -> None:
        """Forget who is left."""
        for queue in (self._alone, self._free, *self._at_home):
            queue.clear()
        self._groups.clear()

    def note(self, num_clients: int, seconds: float) -> None:
        """Learn from a chunk that is done."""
        each = seconds / num_clients
        old = self.client_seconds
        self.client_seconds = each if old is None else old + _SMOOTHING * (each - old)

    def _steal(self, size: int) -> list[int]:
        """Take half of what is left for the busiest worker, from the end."""
        queue = max(self._at_home, key=len)
        count = min(size, -(-len(queue) // 2))
        return [queue.pop() for _ in range(count)][::-1]

    def _chunk_size(self) -> int:
        if self.client_seconds is None:
            return max(1, min(self._max_chunk, self._share // _FIRST_PARTS))
        affordable = max(1, int(self._chunk_seconds / max(self.client_seconds, 1e-6)))
        if affordable >= self._share:  # one chunk each: nothing to even out
            return max(1, min(self._max_chunk, self._share))
        evenly = -(-len(self) // self._num_workers)
        return max(1, min(affordable, evenly, self._max_chunk))


def _groups(count: int) -> list[list[int]]:
    """Return the clients that are computed together, in order."""
    wanted = -(-count // _MAX_TOGETHER)
    num_groups = min(count, -(-wanted // _GROUPS_MULTIPLE) * _GROUPS_MULTIPLE)
    size, more = divmod(count, num_groups)
    sizes = [size + (place < more) for place in range(num_groups)]
    ends = list(accumulate(sizes))
    return [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
