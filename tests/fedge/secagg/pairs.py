"""In-memory sessions: a real server, real clients, and a link that loses and changes.

Credentials are made once and used again, since they are the slow part; every session
draws its own keys. Nothing in here knows Flower.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum, auto

import numpy as np

from fedge.arrays import AnyArray, Int64
from fedge.errors import PeerError, RoundAbortedError
from fedge.secagg import client, joining
from fedge.secagg.client import ClientState, RandomBytes
from fedge.secagg.hashing import digest
from fedge.secagg.joining import Session
from fedge.secagg.packing import pack
from fedge.secagg.parameters import complete_parameters
from fedge.secagg.policy import Counter, Policy
from fedge.secagg.ring import PROFILES
from fedge.secagg.roster import Credentials, Roster
from fedge.secagg.server import Server
from fedge.secagg.session import Descriptor
from fedge.secagg.transitions import ServerPhase
from tests.fedge.secagg.people import NOW, OWNER, person

MODEL, CONFIG = digest("model", b"a model"), digest("config", b"a plan")


FIRST = Counter(1, 0, 0)


class Trip(StrEnum):
    """What a client sends up."""

    advertise = auto()
    mask = auto()
    confirm = auto()
    unmask = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A proposal, its roster, and the participants in the order of the roster."""

    descriptor: Descriptor
    roster: Roster
    people: tuple[Credentials, ...]
    policy: Policy

    @property
    def places(self) -> range:
        """The participants' places."""
        return range(len(self.people))

    def proposing(self, **fields: object) -> "Cohort":
        """Return this cohort under a changed proposal."""
        changed = replace(self.descriptor, **fields)  # type: ignore[arg-type]
        return replace(self, descriptor=changed)

    def join(
        self,
        place: int,
        *,
        last: Counter | None = None,
        model: bytes = MODEL,
        config: bytes = CONFIG,
        now: int = NOW,
    ) -> Session:
        """Let one participant check the proposal."""
        return joining.join(
            self.descriptor.to_bytes(),
            self.roster.to_bytes(),
            self.people[place],
            self.policy,
            last=last,
            model_digest=model,
            config_digest=config,
            now=now,
        )

    def advertise(
        self, place: int, codes: AnyArray, *, random_bytes: RandomBytes = os.urandom
    ) -> tuple[ClientState, bytes]:
        """Let one participant join and send its keys; codes are signed integers."""
        profile = self.descriptor.profile
        packed = pack(codes.astype(np.int64).astype(profile.dtype), profile)
        session = self.join(place, model=self.descriptor.model_digest)
        return client.advertise(
            session, packed, self.people[place], random_bytes=random_bytes
        )


def cohort_of(
    n: int,
    *,
    degree: int = 0,
    threshold: int = 0,
    profile: str = "r24",
    size: int = 8,
    min_survivors: int = 3,
    malicious: bool = False,
    slow: Collection[int] = (),
    counter: Counter = FIRST,
) -> Cohort:
    """Return n participants, all certified by the owner, and a sound proposal."""
    people = tuple(person(7 + 3 * i, fast=i not in slow) for i in range(n))
    roster = Roster(each.member for each in people)
    complete = complete_parameters(n)
    descriptor = Descriptor(
        run=counter.run,
        round_index=counter.round_index,
        attempt=counter.attempt,
        num_participants=n,
        degree=degree or complete[0],
        threshold=threshold or complete[1],
        max_corrupt=n // 10 if malicious and not threshold else 0,
        min_survivors=min_survivors,
        profile=PROFILES[profile],
        clip=1.0,
        max_weight=16.0,
        vector_size=size,
        malicious=malicious,
        model_digest=MODEL,
        config_digest=CONFIG,
        roster_digest=roster.digest(),
    )
    policy = Policy(
        min_participants=3, min_survivors=min_survivors, enrolment_key=OWNER.public
    )
    return Cohort(descriptor=descriptor, roster=roster, people=people, policy=policy)


def random_codes(cohort: Cohort, seed: int) -> Int64:
    """Return one row of codes in [-Q, Q] per participant."""
    most = cohort.descriptor.profile.max_code
    shape = (len(cohort.people), cohort.descriptor.vector_size)
    return np.random.default_rng(seed).integers(-most, most, shape, endpoint=True)


@dataclass(slots=True)
class Link:
    """Between clients and server: loses, repeats, reorders and changes what goes up.

    Attributes:
        drops: whose message is lost, by trip; who lost one sends nothing more.
        changes: what happens to a message, by trip and place.
        repeats: whether every message arrives twice.
        seed: of the order in which messages arrive; None keeps it.
        wire: everything that was sent, in both directions.
    """

    drops: Mapping[Trip, Collection[int]] = field(default_factory=dict)
    changes: Mapping[tuple[Trip, int], Callable[[bytes], bytes]] = field(
        default_factory=dict
    )
    repeats: bool = False
    seed: int | None = None
    wire: list[bytes] = field(default_factory=list)

    def carry(
        self, trip: Trip, messages: Mapping[int, bytes]
    ) -> list[tuple[int, bytes]]:
        """Return what arrives."""
        lost = self.drops.get(trip, ())
        kept = [(i, data) for i, data in messages.items() if i not in lost]
        changed = [(i, self.changes.get((trip, i), bytes)(data)) for i, data in kept]
        arrived = changed * (2 if self.repeats else 1)
        self.wire += [data for _, data in arrived]
        if self.seed is None:
            return arrived
        order = np.random.default_rng(self.seed).permutation(len(arrived))
        return [arrived[i] for i in order]


@dataclass(slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        server: the server's side.
        states: the clients' sides, by place, as they were last.
        sums: of the survivors' codes; None if the session was aborted.
        error: why it was aborted.
        refusals: messages that were refused: trip, place, reason.
    """

    server: Server
    states: dict[int, ClientState]
    sums: Int64 | None = None
    error: RoundAbortedError | None = None
    refusals: list[tuple[Trip, int, PeerError]] = field(default_factory=list)


def run_session(
    cohort: Cohort,
    codes: AnyArray,
    link: Link | None = None,
    *,
    random_bytes: RandomBytes = os.urandom,
) -> Outcome:
    """Run one session, message by message; refused messages are left out.

    Args:
        cohort: who takes part.
        codes: signed integers, shape (n, m).
        link: what happens on the way.
        random_bytes: of the clients.
    """
    link = link or Link()
    outcome = Outcome(Server(cohort.descriptor, cohort.roster), {})
    try:
        _trips(cohort, codes, link, outcome, random_bytes)
        outcome.sums = outcome.server.finish()
    except RoundAbortedError as exc:
        outcome.error = exc
    return outcome


def _trips(
    cohort: Cohort,
    codes: AnyArray,
    link: Link,
    outcome: Outcome,
    random_bytes: RandomBytes,
) -> None:
    server = outcome.server
    sent = {}
    for place in cohort.places:
        outcome.states[place], sent[place] = cohort.advertise(
            place, codes[place], random_bytes=random_bytes
        )
    deliver(link, outcome, Trip.advertise, sent, server.receive_advertisement)
    sent = step(cohort, outcome, link, Trip.mask, server.close_advertising())
    deliver(link, outcome, Trip.mask, sent, server.receive_masked)
    bitmap = server.close_masking()
    if server.phase is ServerPhase.confirming:
        asked = dict.fromkeys(sorted(server.survivors), bitmap)
        sent = step(cohort, outcome, link, Trip.confirm, asked)
        deliver(link, outcome, Trip.confirm, sent, server.receive_confirmation)
        server.close_confirming()
    asked = dict.fromkeys(sorted(server.survivors), server.unmask_request())
    sent = step(cohort, outcome, link, Trip.unmask, asked)
    deliver(link, outcome, Trip.unmask, sent, server.receive_shares)


Step = Callable[[ClientState, bytes, Credentials], tuple[ClientState, bytes]]
STEPS: Mapping[Trip, Step] = {
    Trip.mask: client.mask,
    Trip.confirm: client.confirm,
    Trip.unmask: client.unmask,
}


def step(
    cohort: Cohort, outcome: Outcome, link: Link, trip: Trip, asked: Mapping[int, bytes]
) -> dict[int, bytes]:
    """Let every client that was asked answer; a refusal leaves its state alone."""
    answers: dict[int, bytes] = {}
    link.wire += asked.values()
    for place, data in sorted(asked.items()):
        try:
            outcome.states[place], answers[place] = STEPS[trip](
                outcome.states[place], data, cohort.people[place]
            )
        except PeerError as exc:
            outcome.refusals.append((trip, place, exc))
    return answers


def deliver(
    link: Link,
    outcome: Outcome,
    trip: Trip,
    sent: Mapping[int, bytes],
    receive: Callable[[int, bytes], None],
) -> None:
    """Hand the server what arrives."""
    for place, data in link.carry(trip, sent):
        try:
            receive(place, data)
        except PeerError as exc:
            outcome.refusals.append((trip, place, exc))
