"""What a client refuses once it has joined, and what is left in it afterwards."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fedge.errors import PeerError
from fedge.secagg.client import ClientState
from fedge.secagg.messages import BOX_BYTES, Peer
from fedge.secagg.policy import Counter
from fedge.secagg.roster import enroll
from fedge.secagg.transitions import ClientPhase
from tests.fedge.secagg.halfway import (
    Halfway,
    advertised,
    masked,
    secrets_of,
    signed,
    texts_of,
)
from tests.fedge.secagg.pairs import Trip, cohort_of
from tests.fedge.secagg.people import NOT_AFTER, OWNER

COHORT = cohort_of(7, counter=Counter(2, 3, 4), min_survivors=5)


# -- masking ---------------------------------------------------------------------------

SESSION = advertised(COHORT)


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: replace(p, mask_key=flipped(p.mask_key)), "signature"),
        (lambda p: replace(p, commitment=flipped(p.commitment)), "signature"),
        (lambda p: replace(p, boxes_digest=flipped(p.boxes_digest)), "signature"),
        (lambda p: replace(p, signature=flipped(p.signature)), "signature"),
        (lambda p: replace(p, box=flipped(p.box)), "box does not open"),
        (lambda p: replace(p, box=flipped(p.box, 40)), "box does not open"),
        (lambda p: replace(p, index=99), "no neighbour"),
        (lambda p: replace(p, index=2), "no neighbour"),
    ],
)
def test_what_was_changed_on_the_way_is_refused_and_changes_nothing(
    change: Callable[[Peer], Peer], reason: str
) -> None:
    before = SESSION.states[2]
    data = SESSION.with_peers(2, change)
    with pytest.raises(PeerError, match=reason):
        SESSION.answer(Trip.mask, 2, data)
    after, _ = SESSION.answer(Trip.mask, 2, SESSION.asked[2])
    assert (SESSION.states[2], after.phase) == (before, ClientPhase.masked)


def test_a_refusal_names_the_peer_that_costs_the_round() -> None:
    data = SESSION.with_peers(2, lambda p: replace(p, box=flipped(p.box)), at=3)
    with pytest.raises(PeerError, match="participant 4: a box"):
        SESSION.answer(Trip.mask, 2, data)


def test_boxes_that_were_swapped_are_refused() -> None:
    own, other = SESSION.asked[2], SESSION.asked[3]
    with pytest.raises(PeerError, match="box does not open"):
        SESSION.answer(Trip.mask, 2, own[:-BOX_BYTES] + other[-BOX_BYTES:])


def test_the_boxes_of_another_session_are_refused() -> None:
    other = advertised(COHORT.proposing(attempt=5))
    with pytest.raises(PeerError, match="signature"):
        SESSION.answer(Trip.mask, 2, other.asked[2])


def test_a_peer_that_occurs_twice_is_refused() -> None:
    entry = len(SESSION.asked[2]) // 6
    data = SESSION.asked[2][: 5 * entry] + SESSION.asked[2][:entry]
    with pytest.raises(PeerError, match="twice"):
        SESSION.answer(Trip.mask, 2, data)


def test_too_few_neighbours_are_refused() -> None:
    assert COHORT.descriptor.threshold == 5
    SESSION.answer(Trip.mask, 2, SESSION.only_peers(2, {0, 1, 3, 4, 5}))
    with pytest.raises(PeerError, match="4 neighbours are left"):
        SESSION.answer(Trip.mask, 2, SESSION.only_peers(2, {0, 1, 3, 4}))


def test_who_is_no_neighbour_in_the_graph_is_refused() -> None:
    sparse = cohort_of(7, degree=4, threshold=3)
    sparse = replace(sparse, policy=replace(sparse.policy, min_degree=4))
    stranger = min(set(range(1, 7)) - set(sparse.join(0).neighbours))
    session = advertised(sparse)
    data = session.with_peers(0, lambda p: replace(p, index=stranger))
    with pytest.raises(PeerError, match=f"{stranger} is no neighbour"):
        session.answer(Trip.mask, 0, data)


@pytest.mark.parametrize("point", [bytes(32), bytes([1]) + bytes(31)])
def test_a_key_that_makes_the_shared_secret_zero_is_refused(point: bytes) -> None:
    data = SESSION.with_peers(2, lambda p: signed(COHORT, replace(p, mask_key=point)))
    with pytest.raises(PeerError, match="unusable"):
        SESSION.answer(Trip.mask, 2, data)


def test_two_neighbours_with_one_mask_key_are_refused() -> None:
    entry = len(SESSION.asked[2]) // 6
    key = SESSION.asked[2][entry + 4 : entry + 36]
    data = SESSION.with_peers(2, lambda p: signed(COHORT, replace(p, mask_key=key)))
    with pytest.raises(PeerError, match="same mask key"):
        SESSION.answer(Trip.mask, 2, data)


def test_a_second_mask_is_refused() -> None:
    state, _ = SESSION.answer(Trip.mask, 2, SESSION.asked[2])
    later = replace(SESSION, states={**SESSION.states, 2: state})
    with pytest.raises(PeerError, match="masked"):
        later.answer(Trip.mask, 2, SESSION.asked[2])


def test_other_credentials_than_those_of_the_session_are_refused() -> None:
    people = list(COHORT.people)
    people[2] = enroll(OWNER, uid=people[2].member.uid, caps=1, not_after=NOT_AFTER)
    moved = replace(SESSION, cohort=replace(COHORT, people=tuple(people)))
    with pytest.raises(PeerError, match="other keys"):
        moved.answer(Trip.mask, 2, SESSION.asked[2])


# -- unmasking -------------------------------------------------------------------------

MASKED = masked(COHORT)
CONFIRMED = masked(COHORT.proposing(malicious=True))
EVERYBODY = range(7)


@pytest.mark.parametrize(
    ("survivors", "reason"),
    [
        ({0, 1, 3, 4, 5, 6}, "not among them"),
        ({0, 1, 2, 3}, "need 5"),
        (set(), "not among them"),
        ({0, 1, 2, 3, 4}, "4 neighbours"),
    ],
)
@pytest.mark.parametrize(
    ("session", "trip"), [(MASKED, Trip.unmask), (CONFIRMED, Trip.confirm)]
)
def test_a_survivor_set_that_exposes_somebody_is_refused(
    session: Halfway, trip: Trip, survivors: set[int], reason: str
) -> None:
    data = session.unmask_for(survivors)
    with pytest.raises(PeerError, match=reason):
        session.answer(trip, 2, data)
    assert session.states[2].phase is ClientPhase.masked


@pytest.mark.parametrize("data", [b"", bytes([0xFF]), bytes(2), bytes(70)])
def test_a_malformed_survivor_set_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        MASKED.answer(Trip.unmask, 2, data)


def test_a_survivor_that_never_sent_its_shares_is_refused() -> None:
    state, _ = SESSION.answer(Trip.mask, 2, SESSION.only_peers(2, {0, 1, 3, 4, 5}))
    later = replace(SESSION, states={**SESSION.states, 2: state})
    with pytest.raises(PeerError, match="never sent its shares"):
        later.answer(Trip.unmask, 2, later.unmask_for(EVERYBODY))


def test_a_client_gives_one_share_per_peer_of_the_kind_that_it_chooses_itself() -> None:
    survivors = {0, 1, 2, 3, 4, 5}
    given = MASKED.shares(2, survivors)
    kept = MASKED.states[2].shares
    assert given == {
        peer: kept[peer][0] if peer in survivors else kept[peer][1] for peer in kept
    }


def test_a_second_unmask_is_refused_even_for_the_same_survivors() -> None:
    state, _ = MASKED.answer(Trip.unmask, 2, MASKED.unmask_for(EVERYBODY))
    later = replace(MASKED, states={**MASKED.states, 2: state})
    with pytest.raises(PeerError, match="done"):
        later.answer(Trip.unmask, 2, MASKED.unmask_for(EVERYBODY))


def confirmed() -> tuple[Halfway, dict[int, bytes]]:
    """Return the session in which everybody has signed, and the signatures."""
    answers = {
        place: CONFIRMED.answer(Trip.confirm, place, CONFIRMED.asked[place])
        for place in EVERYBODY
    }
    states = {place: state for place, (state, _) in answers.items()}
    signatures = {place: signature for place, (_, signature) in answers.items()}
    return replace(CONFIRMED, states=states), signatures


SIGNING, SIGNATURES = confirmed()


def test_a_majority_of_signatures_opens() -> None:
    four = {place: SIGNATURES[place] for place in (0, 3, 5, 6)}
    state, _ = SIGNING.answer(Trip.unmask, 2, SIGNING.unmask_for(EVERYBODY, four))
    assert state.phase is ClientPhase.done


@pytest.mark.parametrize(
    ("signatures", "reason"),
    [
        ({}, "0 signatures, need 4"),
        ({p: SIGNATURES[p] for p in (0, 1, 2)}, "3 signatures, need 4"),
        (dict.fromkeys((0, 1, 2, 3), SIGNATURES[0]), "not valid"),
        ({p: bytes(64) for p in EVERYBODY}, "not valid"),
    ],
)
def test_too_few_or_wrong_signatures_are_refused(
    signatures: dict[int, bytes], reason: str
) -> None:
    with pytest.raises(PeerError, match=reason):
        SIGNING.answer(Trip.unmask, 2, SIGNING.unmask_for(EVERYBODY, signatures))


def test_signatures_on_another_survivor_set_are_refused() -> None:
    fewer = {0, 1, 2, 3, 4, 5}
    with pytest.raises(PeerError, match="signed by somebody who is not"):
        SIGNING.answer(Trip.unmask, 2, SIGNING.unmask_for(fewer, SIGNATURES))
    five = {place: SIGNATURES[place] for place in fewer}
    with pytest.raises(PeerError, match="not valid"):
        SIGNING.answer(Trip.unmask, 2, SIGNING.unmask_for(fewer, five))


def test_a_second_confirm_is_refused() -> None:
    with pytest.raises(PeerError, match="confirmed"):
        SIGNING.answer(Trip.confirm, 2, CONFIRMED.asked[2])


# -- erasure ---------------------------------------------------------------------------


def test_key_seed_and_update_are_erased_when_the_masked_update_is_sent() -> None:
    state = MASKED.states[2]
    assert (state.codes, state.mask_key, state.seed) == (b"", b"", b"")
    assert len(state.shares) == 6


@pytest.mark.parametrize(
    ("session", "signatures"), [(MASKED, {}), (SIGNING, SIGNATURES)]
)
def test_nothing_secret_is_left_after_the_answer(
    session: Halfway, signatures: dict[int, bytes]
) -> None:
    data = session.unmask_for(EVERYBODY, signatures)
    state, _ = session.answer(Trip.unmask, 2, data)
    before = session.states[2]
    assert state == ClientState(ClientPhase.done, before.descriptor, before.roster)
    assert secrets_of([state]) == []


def test_no_text_shows_a_secret() -> None:
    states = [*SESSION.states.values(), *MASKED.states.values()]
    errors = []
    for trip, session in ((Trip.mask, SESSION), (Trip.unmask, MASKED)):
        for data in (b"", bytes(9), session.asked[2] + b"x"):
            with pytest.raises(PeerError) as refused:
                session.answer(trip, 2, data)
            errors.append(refused.value)
    shown = texts_of(errors) + "".join(map(repr, [*states, *COHORT.people]))
    secrets = secrets_of(states)
    secrets += [each.identity.to_bytes() for each in COHORT.people]
    secrets += [each.channel.to_bytes() for each in COHORT.people]
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
