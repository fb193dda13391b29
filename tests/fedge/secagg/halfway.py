"""Sessions in the middle, for tests that play the server or look at what is kept."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from fedge.arrays import AnyArray
from fedge.errors import FedgeError
from fedge.secagg.bitmap import pack_set
from fedge.secagg.client import ClientState
from fedge.secagg.messages import (
    Peer,
    UnmaskRequest,
    peers_from_bytes,
    peers_to_bytes,
    shares_from_bytes,
)
from fedge.secagg.server import Server
from tests.fedge.secagg.pairs import Cohort, Link, Outcome, Trip, random_codes, step


@dataclass(frozen=True, slots=True)
class Halfway:
    """A session whose trips so far went without losses.

    Attributes:
        cohort: who takes part.
        server: the server's side.
        states: the clients' sides, by place.
        sent: each client's last message.
        asked: the server's last message to each client.
    """

    cohort: Cohort
    server: Server
    states: dict[int, ClientState]
    sent: dict[int, bytes]
    asked: dict[int, bytes]

    def answer(self, trip: Trip, place: int, data: bytes) -> tuple[ClientState, bytes]:
        """Let one client answer; raises what it raises."""
        outcome = Outcome(self.server, dict(self.states))
        answers = step(self.cohort, outcome, Link(), trip, {place: data})
        for _, _, error in outcome.refusals:
            raise error
        return outcome.states[place], answers[place]

    def with_peers(
        self, place: int, change: Callable[[Peer], Peer], *, at: int = 0
    ) -> bytes:
        """Return the trip-2 message to one client with one entry changed."""
        degree = self.cohort.descriptor.degree
        peers = list(peers_from_bytes(self.asked[place], degree=degree))
        peers[at] = change(peers[at])
        return peers_to_bytes(peers)

    def only_peers(self, place: int, kept: Collection[int]) -> bytes:
        """Return the trip-2 message to one client without the other neighbours."""
        degree = self.cohort.descriptor.degree
        peers = peers_from_bytes(self.asked[place], degree=degree)
        return peers_to_bytes([peer for peer in peers if peer.index in kept])

    def unmask_for(
        self, survivors: Iterable[int], signatures: dict[int, bytes] | None = None
    ) -> bytes:
        """Return a trip-3 message that names these survivors."""
        bitmap = pack_set(survivors, len(self.cohort.people))
        return UnmaskRequest(bitmap, signatures or {}).to_bytes()

    def shares(self, place: int, survivors: Iterable[int]) -> dict[int, bytes]:
        """Return one client's shares for these survivors, by owner."""
        _, data = self.answer(Trip.unmask, place, self.unmask_for(survivors))
        return shares_from_bytes(data, degree=self.cohort.descriptor.degree)


def advertised(cohort: Cohort, codes: AnyArray | None = None) -> Halfway:
    """Run trip 1; return the session in which masked updates are asked for."""
    given = random_codes(cohort, 0) if codes is None else codes
    server, states, sent = Server(cohort.descriptor, cohort.roster), {}, {}
    for place in cohort.places:
        states[place], sent[place] = cohort.advertise(place, given[place])
        server.receive_advertisement(place, sent[place])
    return Halfway(cohort, server, states, sent, server.close_advertising())


def masked(cohort: Cohort, codes: AnyArray | None = None) -> Halfway:
    """Run trips 1 and 2; return the session in which survivors are to be agreed."""
    session = advertised(cohort, codes)
    states, sent = {}, {}
    for place, data in session.asked.items():
        states[place], sent[place] = session.answer(Trip.mask, place, data)
        session.server.receive_masked(place, sent[place])
    bitmap = session.server.close_masking()
    return replace(
        session, states=states, sent=sent, asked=dict.fromkeys(states, bitmap)
    )


def secrets_of(states: Iterable[ClientState]) -> list[bytes]:
    """Return everything in these states that must never be seen."""
    found: list[bytes] = []
    for state in states:
        found += [state.codes, state.mask_key, state.seed]
        found += [share for pair in state.shares.values() for share in pair]
    return [secret for secret in found if secret]


def texts_of(errors: Sequence[FedgeError]) -> str:
    """Return all that these exceptions say, causes included."""
    chain: list[BaseException] = list(errors)
    for error in chain:
        chain += [e for e in (error.__cause__, error.__context__) if e is not None]
    return "\n".join(f"{e!s} {e!r}" for e in chain)


def signed(cohort: Cohort, peer: Peer) -> Peer:
    """Return this entry as the peer itself would have signed it."""
    place = peer.index.to_bytes(4, "little")
    parts = (peer.mask_key, peer.commitment, peer.boxes_digest)
    identity = cohort.people[peer.index].identity
    session_id = cohort.descriptor.session_id
    return replace(
        peer, signature=identity.sign("advertise", session_id, place, *parts)
    )
