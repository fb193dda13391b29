"""Taking part in a session: what a client checks before it agrees to anything."""

from dataclasses import dataclass
from functools import lru_cache

from fedge.errors import PeerError
from fedge.secagg.graph import neighbours
from fedge.secagg.policy import Counter, Policy
from fedge.secagg.roster import (
    Credentials,
    Member,
    Roster,
    check_distinct,
    check_member,
)
from fedge.secagg.session import Descriptor

# A run's number is its start in milliseconds since 1970. One from the far future would
# lock a client out of all later ones.
_LARGEST_LEAD_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Session:
    """A session that a client has checked and takes part in.

    Attributes:
        descriptor: what was agreed.
        roster: who takes part.
        index: this client's place in the roster.
        neighbours: its neighbours' places, ascending.
        session_id: see `Descriptor`.
    """

    descriptor: Descriptor
    roster: Roster
    index: int
    neighbours: tuple[int, ...]
    session_id: bytes


def join(
    descriptor: bytes,
    roster: bytes,
    credentials: Credentials,
    policy: Policy,
    *,
    last: Counter | None,
    model_digest: bytes,
    config_digest: bytes,
    now: int,
) -> Session:
    """Check a proposed session against everything this client knows.

    Args:
        descriptor: as it was received.
        roster: as it was received.
        credentials: this client's own.
        policy: its floors.
        last: the last session it took part in.
        model_digest: of the model that this client was really sent.
        config_digest: of the instructions that it was really sent.
        now: unix seconds, for the certificates.

    Raises:
        PeerError: the session is not acceptable; the message names the reason.
    """
    session = read_session(descriptor, roster, credentials)
    proposed = session.descriptor
    policy.check(proposed)
    if last is not None and not Counter.of(proposed).is_after(last):
        raise PeerError("session: this client has already seen it or a later one")
    if proposed.run > (now + _LARGEST_LEAD_SECONDS) * 1000:
        raise PeerError("session: its run lies in the future; is a clock wrong?")
    if proposed.model_digest != model_digest:
        raise PeerError("session: made for another model than the one that was sent")
    if proposed.config_digest != config_digest:
        raise PeerError("session: made for other instructions than those sent")
    _check_members(session, policy, now=now)
    return session


def _check_members(session: Session, policy: Policy, *, now: int) -> None:
    """Check everybody, not the neighbours alone: invented members would count too."""
    check_distinct(session.roster)
    for member in session.roster.members:
        # Without an enrolment key a certificate is signed by the identity itself.
        authority = policy.enrolment_key or member.certificate.identity_key
        _check_signatures_of(member, authority)
        last = min(member.certificate.not_after, member.statement.not_after)
        if now > last:
            raise PeerError(f"uid {member.uid}: its keys expired at {last}, now {now}")


@lru_cache(maxsize=65_536)
def _check_signatures_of(member: Member, authority: bytes) -> None:
    """Check a member's documents; the same ones are met in every round."""
    check_member(member, authority, now=0)


def read_session(descriptor: bytes, roster: bytes, credentials: Credentials) -> Session:
    """Return a session as it was proposed; nothing is accepted here.

    Raises:
        PeerError: malformed, or not about this client.
    """
    proposed, members = Descriptor.from_bytes(descriptor), Roster.from_bytes(roster)
    n = proposed.num_participants
    if len(members) != n or members.digest() != proposed.roster_digest:
        raise PeerError("session: the roster is not the one of the descriptor")
    index = members.index_of(credentials.member.certificate.uid)
    if members.members[index] != credentials.member:
        raise PeerError("session: the roster has other keys for this client")
    seed = proposed.graph_seed
    near = neighbours(index, n=n, k=proposed.degree, seed=seed)
    return Session(proposed, members, index, near, proposed.session_id)
