from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import ConfigError, PeerError
from fedge.secagg.policy import Counter, Policy
from tests.fedge.secagg.pairs import cohort_of

SOUND = cohort_of(9, degree=8, threshold=6, min_survivors=5).descriptor
NUMBERS = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))


def test_a_session_on_the_floor_is_accepted() -> None:
    policy = Policy(
        min_participants=9, min_survivors=5, min_degree=8, min_threshold_share=0.75
    )
    policy.check(SOUND)


@pytest.mark.parametrize(
    ("floor", "reason"),
    [
        ({"min_participants": 10}, "9 participants"),
        ({"min_survivors": 6}, "sums of 5"),
        ({"min_threshold_share": 0.76}, "threshold 6 of 8"),
        ({"require_malicious": True, "enrolment_key": bytes(32)}, "consistency"),
        ({"max_weight": 1e-3}, "weights up to"),
    ],
)
def test_a_session_below_a_floor_is_refused(floor: dict[str, Any], reason: str) -> None:
    with pytest.raises(PeerError, match=reason):
        replace(Policy(), **floor).check(SOUND)


def test_few_neighbours_are_refused_unless_they_are_all_others() -> None:
    sparse = replace(SOUND, degree=6, threshold=5)
    Policy(min_degree=6).check(sparse)
    Policy(min_degree=100).check(SOUND)
    with pytest.raises(PeerError, match="6 neighbours"):
        Policy(min_degree=7).check(sparse)


def test_a_client_that_needs_the_consistency_trip_gets_it() -> None:
    policy = Policy(require_malicious=True, enrolment_key=bytes(32))
    policy.check(replace(SOUND, malicious=True))


@pytest.mark.parametrize(
    "floor",
    [
        {"min_participants": 2},
        {"min_survivors": 1},
        {"min_degree": 1},
        {"require_malicious": True},
        {"min_corrupt_share": 0.5},
        {"max_weight": 0.0},
        {"min_threshold_share": 0.49},
        {"min_threshold_share": 1.01},
        {"min_threshold_share": float("nan")},
    ],
)
def test_a_floor_that_protects_nothing_is_refused(floor: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Policy(**floor)


@settings(deadline=None, max_examples=100)
@given(NUMBERS, NUMBERS)
def test_of_two_sessions_exactly_one_is_after_the_other(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    first, second = Counter(*one), Counter(*other)
    assert first.is_after(second) + second.is_after(first) == (one != other)
    assert first.is_after(second) == (one > other)


def test_a_counter_is_that_of_its_session() -> None:
    proposed = replace(SOUND, run=3, round_index=4, attempt=5)
    assert Counter.of(proposed) == Counter(3, 4, 5)


def test_without_a_beacon_a_client_wants_a_graph_that_grinding_cannot_spoil() -> None:
    many = replace(SOUND, num_participants=100, degree=16, threshold=9)
    with pytest.raises(PeerError, match="16 neighbours, this client needs 99"):
        Policy().check(many)
    with pytest.raises(PeerError, match="threshold 60 of 99, this client needs 67"):
        Policy().check(replace(many, degree=99, threshold=60))
    Policy().check(replace(many, degree=99, threshold=67))


def test_a_malicious_session_must_survive_a_tenth_of_the_participants() -> None:
    session = replace(
        SOUND,
        num_participants=30,
        degree=29,
        threshold=20,
        malicious=True,
        max_corrupt=2,
    )
    with pytest.raises(PeerError, match="2 corrupt, this client needs 3"):
        Policy().check(session)
    Policy().check(replace(session, max_corrupt=3))
