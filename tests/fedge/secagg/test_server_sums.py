"""Masked updates that come added up are worth the same as one by one."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import Int64
from fedge.errors import PeerError
from fedge.secagg.packing import add_packed
from fedge.secagg.ring import RingArray
from fedge.secagg.server import Server
from tests.fedge.secagg.halfway import Halfway, advertised
from tests.fedge.secagg.pairs import Trip, cohort_of, random_codes

COHORT = cohort_of(7)
CODES = random_codes(COHORT, 1)
SIZE = COHORT.descriptor.vector_size


def asked() -> tuple[Halfway, dict[int, bytes]]:
    """Return a session in trip 2 and everybody's masked update."""
    session, sent = advertised(COHORT, CODES), {}
    for place, data in session.asked.items():
        session.states[place], sent[place] = session.answer(Trip.mask, place, data)
    return session, sent


def sum_of(updates: Sequence[bytes]) -> RingArray:
    profile = COHORT.descriptor.profile
    total: RingArray = np.zeros(SIZE, profile.dtype)
    for update in updates:
        add_packed(total, update, profile)
    return total


def opened(session: Halfway) -> Int64:
    """Run the last trip; return the sum."""
    server: Server = session.server
    server.close_masking()
    request = server.unmask_request()
    for place in sorted(server.survivors):
        _, shares = session.answer(Trip.unmask, place, request)
        server.receive_shares(place, shares)
    return server.finish()


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(-1, 2), min_size=7, max_size=7))
def test_any_grouping_opens_the_same_sum(groups: list[int]) -> None:
    """Group -1 comes one by one."""
    session, sent = asked()
    for group in range(3):
        places = [place for place in range(7) if groups[place] == group]
        updates = [sent[place] for place in places]
        session.server.receive_masked_sum(places, sum_of(updates))
    for place in (place for place in range(7) if groups[place] == -1):
        session.server.receive_masked(place, sent[place])
    np.testing.assert_array_equal(opened(session), CODES.sum(axis=0))


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        ([1, 7], "not in this session"),
        ([1, -1], "not in this session"),
        ([1, 0], "answered masking twice"),
    ],
)
def test_a_sum_with_a_stranger_or_somebody_known_changes_nothing(
    places: list[int], problem: str
) -> None:
    session, sent = asked()
    session.server.receive_masked(0, sent[0])
    with pytest.raises(PeerError, match=problem):
        session.server.receive_masked_sum(places, sum_of([sent[1], sent[2]]))
    session.server.receive_masked_sum(
        range(1, 7), sum_of([sent[p] for p in range(1, 7)])
    )
    np.testing.assert_array_equal(opened(session), CODES.sum(axis=0))


def test_a_sum_that_names_somebody_twice_is_refused() -> None:
    session, sent = asked()
    with pytest.raises(PeerError, match="twice"):
        session.server.receive_masked_sum([1, 1], sum_of([sent[1], sent[1]]))


@pytest.mark.parametrize("shape", [(SIZE - 1,), (SIZE, 1), ()])
def test_a_sum_of_another_shape_or_type_changes_nothing(shape: tuple[int, ...]) -> None:
    session, sent = asked()
    dtype = COHORT.descriptor.profile.dtype
    with pytest.raises(PeerError, match="partial sum"):
        session.server.receive_masked_sum([1], np.zeros(shape, dtype))
    with pytest.raises(PeerError, match="partial sum"):
        session.server.receive_masked_sum([1], np.zeros(SIZE, np.int64))
    session.server.receive_masked_sum(range(7), sum_of([sent[p] for p in range(7)]))
    np.testing.assert_array_equal(opened(session), CODES.sum(axis=0))


def test_who_was_not_asked_is_not_in_a_sum() -> None:
    _, sent = asked()
    server = Server(COHORT.descriptor, COHORT.roster)
    halfway = advertised(COHORT, CODES)
    for place in range(6):
        server.receive_advertisement(place, halfway.sent[place])
    server.close_advertising()
    with pytest.raises(PeerError, match="was not asked"):
        server.receive_masked_sum([5, 6], sum_of([sent[5], sent[6]]))


def test_a_late_sum_is_never_looked_at() -> None:
    session, sent = asked()
    session.server.receive_masked_sum(range(7), sum_of([sent[p] for p in range(7)]))
    session.server.close_masking()
    with pytest.raises(PeerError, match="answered masking in unmasking"):
        session.server.receive_masked_sum([1], sum_of([sent[1]]))


def test_the_sum_that_is_handed_over_stays_the_callers() -> None:
    session, sent = asked()
    total = sum_of([sent[p] for p in range(7)])
    before = total.copy()
    session.server.receive_masked_sum(range(7), total)
    opened(session)
    np.testing.assert_array_equal(total, before)
