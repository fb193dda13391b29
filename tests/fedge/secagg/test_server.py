"""What the server refuses, whom it names, and that it opens all or nothing."""

import tracemalloc
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import MisuseError, PeerError, RoundAbortedError
from fedge.secagg.advertising import boxes_digest
from fedge.secagg.messages import Advertisement, shares_from_bytes, shares_to_bytes
from fedge.secagg.packing import pack
from fedge.secagg.server import Server
from fedge.secagg.transitions import ServerPhase
from tests.fedge.secagg.halfway import Halfway, advertised, masked
from tests.fedge.secagg.pairs import (
    Cohort,
    Link,
    Trip,
    cohort_of,
    random_codes,
    run_session,
)

COHORT = cohort_of(7)
CODES = random_codes(COHORT, 1)


def begun(cohort: Cohort = COHORT) -> tuple[Server, dict[int, bytes]]:
    """Return a server in trip 1 and everybody's advertisement."""
    sent = {p: cohort.advertise(p, CODES[p])[1] for p in cohort.places}
    return Server(cohort.descriptor, cohort.roster), sent


# -- trip 1 ----------------------------------------------------------------------------


def test_an_advertisement_is_taken_once_and_from_its_signer_only() -> None:
    server, sent = begun()
    for place, data in ((1, sent[0]), (0, sent[0][:-1]), (0, sent[1])):
        with pytest.raises(PeerError):
            server.receive_advertisement(place, data)
    server.receive_advertisement(0, sent[0])
    with pytest.raises(PeerError, match="twice"):
        server.receive_advertisement(0, sent[0])


@pytest.mark.parametrize("place", [-1, 7, 2**40])
def test_strangers_are_refused_in_every_trip(place: int) -> None:
    server, sent = begun()
    with pytest.raises(PeerError, match="not in this session"):
        server.receive_advertisement(place, sent[0])
    later = masked(COHORT).server
    with pytest.raises(PeerError, match="not in this session"):
        later.receive_shares(place, b"")


def advertisement_with_key(place: int, key: bytes, data: bytes) -> bytes:
    """Return this advertisement with another mask key, signed by the sender."""
    sent = Advertisement.from_bytes(data, degree=COHORT.descriptor.degree)
    parts = (key, sent.commitment, boxes_digest(sent.boxes))
    signature = COHORT.people[place].identity.sign(
        "advertise",
        COHORT.descriptor.session_id,
        place.to_bytes(4, "little"),
        *parts,
    )
    return replace(sent, mask_key=key, signature=signature).to_bytes()


def test_a_mask_key_that_neighbours_would_refuse_costs_its_sender_not_the_round() -> (
    None
):
    server, sent = begun()
    server.receive_advertisement(0, sent[0])
    for place, key in ((1, bytes(32)), (2, sent[0][:32])):
        with pytest.raises(PeerError):
            server.receive_advertisement(
                place, advertisement_with_key(place, key, sent[place])
            )
    for place in range(1, 7):
        server.receive_advertisement(place, sent[place])
    assert len(server.close_advertising()) == 7


# -- trip 2 ----------------------------------------------------------------------------


def test_a_masked_update_counts_once_and_only_from_who_was_asked() -> None:
    cohort = cohort_of(7)
    outcome = run_session(
        cohort, CODES, Link(drops={Trip.advertise: [3]}, repeats=True, seed=4)
    )
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, CODES[[0, 1, 2, 4, 5, 6]].sum(0))
    assert {str(e) for _, _, e in outcome.refusals} >= {
        "participant 0 answered masking twice"
    }
    session = advertised(cohort)
    uninvited = replace(session, server=Server(cohort.descriptor, cohort.roster))
    for place in range(6):
        uninvited.server.receive_advertisement(place, session.sent[place])
    uninvited.server.close_advertising()
    with pytest.raises(PeerError, match="was not asked"):
        uninvited.server.receive_masked(6, bytes(24))


def test_a_late_masked_update_is_never_looked_at() -> None:
    session = masked(COHORT, CODES)
    with pytest.raises(PeerError, match="answered masking in unmasking"):
        session.server.receive_masked(0, session.sent[0])


def test_a_vector_of_another_length_changes_nothing() -> None:
    outcome = run_session(
        COHORT, CODES, Link(changes={(Trip.mask, 2): lambda data: data[:-1]})
    )
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, np.delete(CODES, 2, 0).sum(0))


def test_memory_does_not_grow_with_the_cohort() -> None:
    size = 200_000
    cohort = cohort_of(7, size=size)
    session = advertised(cohort, np.zeros((7, size), np.int64))
    vector = pack(np.zeros(size, np.uint32), cohort.descriptor.profile)
    tracemalloc.start()
    try:
        for place in cohort.places:
            session.server.receive_masked(place, vector)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 0.1 * len(vector)
    assert most < 3 * len(vector)


# -- trip 2b ---------------------------------------------------------------------------


def test_only_survivors_may_confirm_and_only_this_survivor_set() -> None:
    cohort = cohort_of(7, malicious=True)
    session = masked(cohort)
    _, right = session.answer(Trip.confirm, 0, session.asked[0])
    other, wrong = masked(cohort), session.unmask_for(range(6))
    _, signed_other = other.answer(Trip.confirm, 0, wrong)
    with pytest.raises(PeerError, match="not valid"):
        session.server.receive_confirmation(0, signed_other)
    with pytest.raises(PeerError, match="not valid"):
        session.server.receive_confirmation(1, right)
    session.server.receive_confirmation(0, right)
    with pytest.raises(PeerError, match="twice"):
        session.server.receive_confirmation(0, right)
    with pytest.raises(RoundAbortedError, match="1 signed"):
        session.server.close_confirming()
    assert session.server.phase is ServerPhase.aborted


# -- trip 3 ----------------------------------------------------------------------------


def answers_of(session: Halfway, survivors: Collection[int]) -> dict[int, bytes]:
    data = session.unmask_for(survivors)
    return {p: session.answer(Trip.unmask, p, data)[1] for p in survivors}


def test_strangers_shares_and_second_answers_are_refused() -> None:
    sparse = cohort_of(9, degree=4, threshold=3)
    sparse = replace(sparse, policy=replace(sparse.policy, min_degree=4))
    session = masked(sparse)
    answers = answers_of(session, range(9))
    near = set(sparse.join(0).neighbours)
    stranger = min(set(range(1, 9)) - near)
    given = shares_from_bytes(answers[0], degree=4)
    foreign = {stranger: given.pop(min(given)), **given}
    for bad in (shares_to_bytes(foreign), answers[0] + b"x", answers[0] * 2):
        with pytest.raises(PeerError):
            session.server.receive_shares(0, bad)
    session.server.receive_shares(0, answers[0])
    with pytest.raises(PeerError, match="twice"):
        session.server.receive_shares(0, answers[0])


def spoilt(data: bytes, cohort: Cohort) -> bytes:
    """Return shares that are all wrong."""
    shares = shares_from_bytes(data, degree=cohort.descriptor.degree)
    wrong = {
        owner: bytes([share[0] ^ 1]) + share[1:] for owner, share in shares.items()
    }
    return shares_to_bytes(wrong)


def spoiling(cohort: Cohort, *places: int) -> Link:
    return Link(
        changes={(Trip.unmask, p): lambda data: spoilt(data, cohort) for p in places}
    )


@pytest.mark.parametrize("liar", range(7))
def test_wrong_shares_of_any_client_are_survived_and_it_is_named(liar: int) -> None:
    outcome = run_session(COHORT, CODES, spoiling(COHORT, liar))
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, CODES.sum(0))
    assert outcome.server.culprits <= {liar}
    if liar < 5:  # shares beyond the first five are not needed, so not looked at
        assert outcome.server.culprits == {liar}


@pytest.mark.parametrize("liars", [(0,), (0, 1), (0, 9), (3, 4, 5)])
def test_the_first_positions_are_no_better_place_for_a_liar(
    liars: tuple[int, ...],
) -> None:
    cohort = cohort_of(20, threshold=13)
    codes = random_codes(cohort, 2)
    link = spoiling(cohort, *liars)
    link.drops = {Trip.mask: [18]}
    outcome = run_session(cohort, codes, link)
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, np.delete(codes, 18, 0).sum(0))
    assert outcome.server.culprits == set(liars)


def test_too_many_wrong_shares_open_nothing() -> None:
    outcome = run_session(COHORT, CODES, spoiling(COHORT, 0, 1, 2))
    assert outcome.sums is None
    assert "do not fit" in str(outcome.error)
    assert_closed(outcome.server)


def assert_closed(server: Server) -> None:
    assert server.phase is ServerPhase.aborted
    with pytest.raises(MisuseError):
        server.finish()
    with pytest.raises(MisuseError):
        server.unmask_request()
    with pytest.raises(PeerError):
        server.receive_shares(0, b"")


LOSSES: list[Mapping[Trip, Collection[int]]] = [
    {Trip.advertise: [0, 1]},
    {Trip.mask: [0, 1, 2]},
    {Trip.advertise: [0], Trip.mask: [1, 2]},
    {Trip.unmask: [0, 1]},
    {Trip.mask: [0], Trip.unmask: [1]},
    {Trip.advertise: range(7)},
    {Trip.mask: range(7)},
    {Trip.unmask: range(7)},
]


@pytest.mark.parametrize("drops", LOSSES)
def test_below_the_threshold_nothing_is_opened(
    drops: Mapping[Trip, Collection[int]],
) -> None:
    cohort = cohort_of(7, threshold=6, min_survivors=6)
    outcome = run_session(cohort, CODES, Link(drops=drops))
    assert outcome.sums is None
    assert isinstance(outcome.error, RoundAbortedError)
    assert_closed(outcome.server)


def test_one_knows_beforehand_whether_it_can_be_opened() -> None:
    session = masked(COHORT)
    answers = answers_of(session, range(7))
    assert not session.server.can_finish
    for place in range(6):
        assert not session.server.can_finish
        session.server.receive_shares(place, answers[place])
    assert session.server.can_finish


# Not of a vector's length: a client may send any vector, that is its input.
@settings(deadline=None, max_examples=20)
@given(
    st.binary(max_size=400).filter(lambda data: len(data) != 24),
    st.sampled_from(list(Trip)),
)
def test_garbage_from_one_client_costs_only_that_client(
    garbage: bytes, trip: Trip
) -> None:
    cohort = cohort_of(6, malicious=True)
    link = Link(changes={(trip, 4): lambda _: garbage})
    outcome = run_session(cohort, CODES[:6], link)
    counted = {Trip.confirm: range(6), Trip.unmask: range(6)}
    kept = list(counted.get(trip, (0, 1, 2, 3, 5)))
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, CODES[kept].sum(0))


def test_a_server_does_not_begin_a_session_that_cannot_be_safe() -> None:
    unsafe = replace(COHORT.descriptor, threshold=3)
    with pytest.raises(PeerError, match="more than half"):
        Server(unsafe, COHORT.roster)
