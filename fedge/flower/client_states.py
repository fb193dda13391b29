"""What clients keep between messages, and which worker has it.

Only clients that keep something are known here, so the others cost nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import RecordDict

from fedge.flower.codec import Blobs, Buffer, Plain, copy_content, decode_content

_NOWHERE = -1


@dataclass(slots=True)
class _Kept:
    """A client's state as a worker last sent it."""

    home: int
    structure: Plain
    blobs: list[bytes]


def _ignore(node: int) -> None:
    """Tell nobody."""


class ClientStates:
    """The states of all clients that have one, by node.

    Args:
        on_keep: told each node whose state has changed.
    """

    def __init__(self, on_keep: Callable[[int], None] = _ignore) -> None:
        self._on_keep = on_keep
        self._kept_by_node: dict[int, _Kept] = {}
        self._forgotten_by_worker: dict[int, list[int]] = {}

    def home_of(self, node: int) -> int | None:
        """Return the worker that has this client's state; None if no one does."""
        kept = self._kept_by_node.get(node)
        return None if kept is None or kept.home == _NOWHERE else kept.home

    def keep(
        self, node: int, worker: int, structure: Plain, blobs: Sequence[Buffer]
    ) -> None:
        """Note what a client has left in a worker; None if nothing."""
        if structure is not None:
            own = Blobs()  # not those of everything that came with it
            copy = copy_content(structure, blobs, own)
            self._kept_by_node[node] = _Kept(worker, copy, own.items)
        elif self._kept_by_node.pop(node, None) is None:
            return  # neither before nor now
        self._on_keep(node)

    def kept(self, node: int) -> tuple[Plain, list[bytes]] | None:
        """Return a client's state, encoded; None if it has none."""
        kept = self._kept_by_node.get(node)
        return None if kept is None else (kept.structure, kept.blobs)

    def bring(self, node: int, structure: Plain, blobs: list[bytes]) -> None:
        """Note a client's state that comes from elsewhere; no worker has it yet."""
        self.send_away(node)
        self._kept_by_node[node] = _Kept(_NOWHERE, structure, blobs)

    def send_away(self, node: int) -> None:
        """Note that a client is run elsewhere; its state need not be kept here."""
        kept = self._kept_by_node.pop(node, None)
        if kept is not None and kept.home != _NOWHERE:
            self._forgotten_by_worker.setdefault(kept.home, []).append(node)

    def to_move(self, node: int, worker: int) -> RecordDict | None:
        """Return the state this worker must be sent to run the client; None if none."""
        kept = self._kept_by_node.get(node)
        if kept is None or kept.home == worker:
            return None
        if kept.home != _NOWHERE:
            self._forgotten_by_worker.setdefault(kept.home, []).append(node)
        kept.home = worker
        return decode_content(kept.structure, kept.blobs)

    def take_forgotten(self, worker: int) -> list[int]:
        """Return the clients whose states this worker need not keep any more."""
        return self._forgotten_by_worker.pop(worker, [])

    def leave(self, worker: int) -> None:
        """Note that a worker is gone, and what it had with it."""
        self._forgotten_by_worker.pop(worker, None)
        for kept in self._kept_by_node.values():
            if kept.home == worker:
                kept.home = _NOWHERE
