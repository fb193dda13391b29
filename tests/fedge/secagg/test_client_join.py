"""Which proposals a client does not join."""

from dataclasses import replace
from typing import Any

import pytest

from fedge.errors import PeerError
from fedge.secagg.channel import make_statement
from fedge.secagg.identity import SigningKey
from fedge.secagg.policy import Counter
from fedge.secagg.ring import Profile
from fedge.secagg.roster import Credentials, Member, Roster, enroll
from tests.fedge.secagg.pairs import Cohort, cohort_of, random_codes
from tests.fedge.secagg.people import NOT_AFTER, NOW, OWNER

COHORT = cohort_of(7, counter=Counter(2, 3, 4), min_survivors=5)


def with_roster(cohort: Cohort, people: list[Credentials]) -> Cohort:
    """Return a proposal in which these take part."""
    ordered = sorted(people, key=lambda each: each.member.uid)
    roster = Roster(each.member for each in ordered)
    changed = replace(cohort, roster=roster, people=tuple(ordered))
    return changed.proposing(roster_digest=roster.digest())


def test_a_sound_proposal_is_joined() -> None:
    session = COHORT.join(2, last=Counter(2, 3, 3))
    assert (session.index, session.neighbours) == (2, (0, 1, 3, 4, 5, 6))


@pytest.mark.parametrize(
    "last", [(2, 3, 4), (2, 3, 5), (2, 4, 0), (3, 0, 0), (2**64 - 1, 0, 0)]
)
def test_a_session_that_is_not_newer_is_refused(last: tuple[int, int, int]) -> None:
    with pytest.raises(PeerError, match="already seen"):
        COHORT.join(2, last=Counter(*last))


def test_another_model_or_other_instructions_are_refused() -> None:
    with pytest.raises(PeerError, match="another model"):
        COHORT.join(2, model=bytes(32))
    with pytest.raises(PeerError, match="other instructions"):
        COHORT.join(2, config=bytes(32))


@pytest.mark.parametrize(
    ("floor", "reason"),
    [
        ({"min_participants": 8}, "participants"),
        ({"min_survivors": 6}, "sums of"),
        ({"min_threshold_share": 1.0}, "threshold"),
        ({"require_malicious": True}, "consistency"),
    ],
)
def test_a_session_below_the_policy_is_refused(
    floor: dict[str, Any], reason: str
) -> None:
    cautious = replace(COHORT, policy=replace(COHORT.policy, **floor))
    with pytest.raises(PeerError, match=reason):
        cautious.join(0)


def test_fewer_neighbours_than_the_policy_wants_are_refused() -> None:
    with pytest.raises(PeerError, match="4 neighbours"):
        cohort_of(7, degree=4, threshold=3).join(0)


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 3},
        {"max_corrupt": 4},
        {"profile": Profile(16, 15)},
        {"clip": 5e-324},
        {"degree": 3, "threshold": 3},
    ],
)
def test_a_proposal_that_cannot_be_safe_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(PeerError):
        COHORT.proposing(**changes).join(0)


def test_a_roster_that_is_not_the_one_of_the_proposal_is_refused() -> None:
    for other in (cohort_of(6), cohort_of(8)):
        with pytest.raises(PeerError, match="not the one of the descriptor"):
            replace(COHORT, roster=other.roster).join(0)
    with pytest.raises(PeerError, match="not the one of the descriptor"):
        COHORT.proposing(roster_digest=bytes(32)).join(0)


def test_a_client_that_is_not_in_the_roster_refuses() -> None:
    outsider = enroll(OWNER, uid=999, caps=1, not_after=NOT_AFTER)
    people = (outsider, *COHORT.people[1:])
    with pytest.raises(PeerError, match="not in the roster"):
        replace(COHORT, people=people).join(0)


def test_other_keys_under_the_own_number_are_refused() -> None:
    uid = COHORT.people[0].member.uid
    impostor = enroll(OWNER, uid=uid, caps=1, not_after=NOT_AFTER)
    with pytest.raises(PeerError, match="other keys for this client"):
        replace(COHORT, people=(impostor, *COHORT.people[1:])).join(0)


def test_a_certificate_of_another_owner_is_refused() -> None:
    invented = enroll(SigningKey.generate(), uid=500, caps=1, not_after=NOT_AFTER)
    with pytest.raises(PeerError, match="uid 500"):
        with_roster(COHORT, [*COHORT.people[:6], invented]).join(0)


@pytest.mark.parametrize("now", [NOT_AFTER + 1, 2**40])
def test_an_expired_certificate_is_refused(now: int) -> None:
    COHORT.join(0, now=NOT_AFTER)
    with pytest.raises(PeerError, match="expired"):
        COHORT.join(0, now=now)


def test_one_expired_member_is_enough() -> None:
    old = enroll(OWNER, uid=500, caps=1, not_after=NOW - 1)
    with pytest.raises(PeerError, match="uid 500: its keys expired"):
        with_roster(COHORT, [*COHORT.people[:6], old]).join(0)


def test_an_identity_or_channel_key_that_occurs_twice_is_refused() -> None:
    original = COHORT.people[5]
    copy = enroll(OWNER, uid=500, caps=1, not_after=NOT_AFTER)
    statement = make_statement(
        copy.identity,
        uid=500,
        epoch=0,
        channel_key=original.channel.public,
        not_after=NOT_AFTER,
    )
    member = Member(copy.member.certificate, statement)
    twin = Credentials(member, copy.identity, original.channel)
    with pytest.raises(PeerError, match="same channel key"):
        with_roster(COHORT, [*COHORT.people[:6], twin]).join(0)


def test_an_update_of_another_length_is_refused() -> None:
    longer = random_codes(COHORT, 0)[0].repeat(2)
    with pytest.raises(PeerError, match="bytes"):
        COHORT.advertise(0, longer)


def test_a_channel_key_that_allows_no_secret_is_refused() -> None:
    odd = enroll(OWNER, uid=500, caps=1, not_after=NOT_AFTER)
    statement = make_statement(
        odd.identity, uid=500, epoch=0, channel_key=bytes(32), not_after=NOT_AFTER
    )
    member = Member(odd.member.certificate, statement)
    roster = Roster([*(each.member for each in COHORT.people[:6]), member])
    hostile = replace(COHORT, roster=roster).proposing(roster_digest=roster.digest())
    with pytest.raises(PeerError, match="no secret"):
        hostile.advertise(0, random_codes(COHORT, 0)[0])
