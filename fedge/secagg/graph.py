"""Who masks with whom: everybody, or k neighbours on a ring in random order.

The graph follows from public values alone, so each client derives its own neighbours
and does not believe the server's. What is not in here: how many neighbours are enough
(`parameters`).

Source: Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead",
CCS 2020, section 3 (random Harary graphs). The ring order is drawn by sorting hashes.
"""

import struct
from collections.abc import Sequence

from fedge.errors import MisuseError, PeerError
from fedge.secagg.hashing import digest


def graph_seed(*, beacon: bytes, roster_digest: bytes) -> bytes:
    """Return the seed of a graph, 32 bytes.

    Args:
        beacon: public randomness that nobody could choose, drawn after the roster was
            fixed; empty if there is none (then take more privacy bits).
        roster_digest: `Roster.digest()`.
    """
    return digest("graph", beacon, roster_digest)


def check_degree(n: int, k: int) -> None:
    """Check that there is a graph of n members with k neighbours each.

    Raises:
        PeerError: n below 3, or k neither n - 1 nor even in [2, n - 2].
    """
    if n < 3:
        raise PeerError(f"graph: {n} members, need at least 3")
    if k != n - 1 and not (k % 2 == 0 and 2 <= k <= n - 2):
        raise PeerError(
            f"graph: {k} neighbours among {n} members; take {n - 1} (the complete "
            f"graph) or an even number in [2, {n - 2}]"
        )


def neighbours(index: int, *, n: int, k: int, seed: bytes) -> tuple[int, ...]:
    """Return the positions of the k neighbours of one member, in ascending order.

    For all members at once `neighbourhoods` sorts the ring only once.

    Guarantee: being neighbours is mutual, nobody is their own neighbour, and fewer than
    k missing members never separate the others.

    Args:
        index: the member's position in the roster, from 0.
        n: members, at least 3.
        k: neighbours of each: n - 1, or an even number below.
        seed: `graph_seed`; not used in the complete graph.

    Raises:
        PeerError: there is no such graph; n and k come from a session's proposal.
        MisuseError: index is not in [0, n).
    """
    check_degree(n, k)
    if not 0 <= index < n:
        raise MisuseError(f"graph: index {index} not in [0, {n})")
    if k == n - 1:
        return tuple(other for other in range(n) if other != index)
    ring = _ring(n, seed)
    return _around(ring, ring.index(index), k)


def neighbours_of(
    indices: Sequence[int], *, n: int, k: int, seed: bytes
) -> dict[int, tuple[int, ...]]:
    """Return `neighbours` of several members, by position; the ring is sorted once.

    Raises:
        PeerError: there is no such graph.
    """
    check_degree(n, k)
    if k == n - 1:
        return {index: neighbours(index, n=n, k=k, seed=seed) for index in indices}
    ring = _ring(n, seed)
    place_of = {member: place for place, member in enumerate(ring)}
    return {index: _around(ring, place_of[index], k) for index in indices}


def neighbourhoods(*, n: int, k: int, seed: bytes) -> tuple[tuple[int, ...], ...]:
    """Return `neighbours` of every member, by position.

    Raises:
        PeerError: there is no such graph; n and k come from a session's proposal.
    """
    check_degree(n, k)
    if k == n - 1:
        return tuple(neighbours(index, n=n, k=k, seed=seed) for index in range(n))
    ring = _ring(n, seed)
    around = {member: _around(ring, place, k) for place, member in enumerate(ring)}
    return tuple(around[index] for index in range(n))


def _ring(n: int, seed: bytes) -> list[int]:
    return sorted(range(n), key=lambda i: digest("ring", seed, struct.pack("<I", i)))


def _around(ring: list[int], place: int, k: int) -> tuple[int, ...]:
    steps = [step for half in range(1, k // 2 + 1) for step in (half, -half)]
    return tuple(sorted(ring[(place + step) % len(ring)] for step in steps))
