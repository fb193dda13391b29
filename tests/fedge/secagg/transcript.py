"""A whole session from fixed bytes, for the frozen transcript.

    python -m tests.fedge.secagg.transcript > tests/vectors/secagg_transcript.json

Five clients, one without AES, in malicious mode; client 3 drops out after its keys, so
that seeds and a key are recovered. Nothing in here is drawn.
"""

import hashlib
import json
from collections.abc import Callable

import numpy as np

from fedge.arrays import AnyArray
from fedge.secagg.channel import ChannelKey, make_statement
from fedge.secagg.identity import SigningKey, issue
from fedge.secagg.roster import Credentials, Member, Roster
from tests.fedge.secagg.pairs import (
    NOT_AFTER,
    OWNER,
    Cohort,
    Link,
    Trip,
    cohort_of,
    run_session,
)

SIZE, DROPPED = 20, 3


def fixed_bytes(seed: str) -> Callable[[int], bytes]:
    """Return a source of bytes that always gives the same ones."""
    at = 0

    def give(count: int) -> bytes:
        nonlocal at
        at += 1
        return hashlib.shake_256(f"{seed}/{at}".encode()).digest(count)

    return give


def fixed_person(place: int) -> Credentials:
    """Return a participant whose keys are always the same."""
    draw, uid = fixed_bytes(f"person/{place}"), 100 + place
    identity = SigningKey.from_bytes(draw(32))
    channel = ChannelKey.from_bytes(draw(32))
    certificate = issue(
        OWNER,
        uid=uid,
        identity_key=identity.public,
        caps=int(place != 1),
        not_after=NOT_AFTER,
    )
    statement = make_statement(
        identity, uid=uid, epoch=0, channel_key=channel.public, not_after=NOT_AFTER
    )
    return Credentials(Member(certificate, statement), identity, channel)


def fixed_cohort() -> Cohort:
    """Return the cohort of the transcript."""
    drawn = cohort_of(5, size=SIZE, malicious=True)
    people = tuple(fixed_person(place) for place in range(5))
    roster = Roster(each.member for each in people)
    changed = Cohort(
        descriptor=drawn.descriptor, roster=roster, people=people, policy=drawn.policy
    )
    return changed.proposing(roster_digest=roster.digest())


def fixed_codes() -> AnyArray:
    """Return everybody's codes: the largest, the smallest, and what lies between."""
    return np.linspace(-32_767, 32_767, 5 * SIZE).astype(np.int64).reshape(5, SIZE)


def transcript() -> dict[str, object]:
    """Return everything that is sent, as hex."""
    cohort = fixed_cohort()
    link = Link(drops={Trip.mask: [DROPPED]})
    outcome = run_session(
        cohort, fixed_codes(), link, random_bytes=fixed_bytes("session")
    )
    assert outcome.sums is not None
    return {
        "source": "python -m tests.fedge.secagg.transcript",
        "session_id": cohort.descriptor.session_id.hex(),
        "descriptor": cohort.descriptor.to_bytes().hex(),
        "roster": cohort.roster.to_bytes().hex(),
        "wire": [message.hex() for message in link.wire],
        "sums": outcome.sums.tolist(),
    }


if __name__ == "__main__":
    print(json.dumps(transcript(), indent=1))
