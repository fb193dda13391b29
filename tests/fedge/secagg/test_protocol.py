"""Whole sessions: exact sums whoever drops out when, and vectors that look random."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import Float32, Int64
from fedge.errors import RoundAbortedError
from fedge.secagg.ring import PROFILES, decode_sum
from fedge.secagg.server import Server
from fedge.secagg.vector import Scale, decode_total, encode_update, vector_size
from tests.fedge.secagg.halfway import Halfway, advertised
from tests.fedge.secagg.pairs import (
    Link,
    Trip,
    cohort_of,
    random_codes,
    run_session,
)


def survivors_after(link: Link, n: int) -> list[int]:
    lost = {*link.drops.get(Trip.advertise, ()), *link.drops.get(Trip.mask, ())}
    return [place for place in range(n) if place not in lost]


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_the_sum_is_exactly_the_integer_sum(data: st.DataObject) -> None:
    n = data.draw(st.integers(4, 9), label="n")
    degrees = [n - 1, *range(4, n - 1, 2)]
    k = data.draw(st.sampled_from(degrees), label="k")
    t = data.draw(st.integers(k // 2 + 1, k), label="t")
    cohort = cohort_of(
        n,
        degree=k,
        threshold=t,
        profile=data.draw(st.sampled_from(sorted(PROFILES)), label="ring"),
        size=data.draw(st.integers(1, 70), label="m"),
        slow=data.draw(st.sets(st.integers(0, n - 1)), label="without AES"),
        malicious=data.draw(st.booleans(), label="malicious"),
    )
    floors = replace(cohort.policy, min_degree=2, min_corrupt_share=0.0)
    cohort = replace(cohort, policy=floors)
    codes = random_codes(cohort, data.draw(st.integers(0, 99), label="seed"))
    outcome = run_session(cohort, codes, Link(seed=n))
    assert outcome.refusals == []
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, codes.sum(0))


def test_weighted_updates_and_metrics_come_out_as_their_means() -> None:
    cohort = cohort_of(6, size=vector_size(50, 1), slow=[1, 4])
    scale = Scale(cohort.descriptor.profile, 1.0, 16.0)
    rng = np.random.default_rng(8)
    updates = rng.normal(0.0, 0.2, (6, 50)).astype(np.float32)
    weights, losses = rng.uniform(4.0, 16.0, 6), rng.uniform(0.0, 3.0, 6)
    vectors = [
        decode_sum(encode_update(u, w, [x], scale), scale.profile)
        for u, w, x in zip(updates, weights, losses, strict=True)
    ]
    outcome = run_session(cohort, np.stack(vectors))
    assert outcome.sums is not None
    decoded = decode_total(outcome.sums, 50, scale, num_survivors=6)
    mean: Float32 = weights @ updates / weights.sum()
    # A weight is rounded to half a code of Q / 4 at least, a coordinate to one.
    np.testing.assert_allclose(decoded.mean, mean, atol=2e-4)
    assert decoded.metrics[0] == pytest.approx(
        weights @ losses / weights.sum(), rel=2e-4
    )


# -- dropouts --------------------------------------------------------------------------


def swept(session: Halfway, codes: Int64) -> tuple[int, int]:
    """Try every pattern of dropouts in every trip; return how many gave a sum."""
    n, threshold = len(session.cohort.people), session.cohort.descriptor.threshold
    masked: dict[frozenset[int], Halfway | None] = {}
    opened = patterns = 0
    for last_trip in product(range(4), repeat=n):  # how far each one comes
        alive = [{p for p in range(n) if last_trip[p] >= trip} for trip in (1, 2, 3)]
        sums = sums_of(session, masked, *alive)
        patterns += 1
        if sums is not None:
            opened += 1
            np.testing.assert_array_equal(sums, codes[sorted(alive[1])].sum(0))
        # Own shares do not count: t + 1 must answer, for there are survivors among
        # them, and t neighbours of each must have been there all along.
        assert (sums is not None) == (len(alive[2]) > threshold)
    return opened, patterns


def sums_of(
    session: Halfway,
    masked: dict[frozenset[int], Halfway | None],
    advertising: set[int],
    masking: set[int],
    unmasking: set[int],
) -> Int64 | None:
    """Open one pattern; clients answer once per set of advertisers."""
    cohort = session.cohort
    server = Server(cohort.descriptor, cohort.roster)
    for place in advertising:
        server.receive_advertisement(place, session.sent[place])
    try:
        asked = server.close_advertising()
        later = masked.get(frozenset(advertising)) or masked_by(session, asked)
        masked[frozenset(advertising)] = later
        for place in masking:
            server.receive_masked(place, later.sent[place])
        server.close_masking()
        if len(unmasking) > 3:  # fewer cannot open it: skip their work
            request = server.unmask_request()
            for place in unmasking:
                _, shares = later.answer(Trip.unmask, place, request)
                server.receive_shares(place, shares)
        return server.finish()
    except RoundAbortedError:
        return None


def masked_by(session: Halfway, asked: dict[int, bytes]) -> Halfway:
    answers = {p: session.answer(Trip.mask, p, data) for p, data in asked.items()}
    return replace(
        session,
        states={p: state for p, (state, _) in answers.items()},
        sent={p: data for p, (_, data) in answers.items()},
    )


def test_every_pattern_of_dropouts_gives_the_exact_sum_or_none() -> None:
    cohort = cohort_of(5)
    codes = random_codes(cohort, 3)
    opened, patterns = swept(advertised(cohort, codes), codes)
    assert patterns == 4**5
    assert opened == 1 + 5 * 3  # all stay, or one of the five drops out in a trip


@pytest.mark.parametrize("n", [3, 4])
def test_small_cohorts_give_the_exact_sum_or_none(n: int) -> None:
    cohort = cohort_of(n)
    codes = random_codes(cohort, 3)
    for last_trip in product(range(4), repeat=n):
        drops = {
            trip: [p for p in range(n) if last_trip[p] == i]
            for i, trip in enumerate((Trip.advertise, Trip.mask, Trip.unmask))
        }
        outcome = run_session(cohort, codes, Link(drops=drops))
        stayed = set(last_trip) == {3}
        assert (outcome.sums is not None) == stayed or n == 4
        if outcome.sums is not None:
            kept = survivors_after(Link(drops=drops), n)
            np.testing.assert_array_equal(outcome.sums, codes[kept].sum(0))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("malicious", [False, True])
def test_twenty_clients_lose_a_third_anywhere(seed: int, malicious: bool) -> None:
    cohort = cohort_of(20, malicious=malicious, slow=[2, 3, 11])
    order = np.random.default_rng(seed).permutation(20).tolist()
    drops = {
        Trip.advertise: order[:2],
        Trip.mask: order[2:4],
        Trip.confirm: order[4:5],
        Trip.unmask: order[4:6],
    }
    codes = random_codes(cohort, seed)
    outcome = run_session(cohort, codes, Link(drops=drops, seed=seed, repeats=True))
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, codes[order[4:]].sum(0))


def test_a_hundred_clients_on_a_sparse_graph_lose_a_tenth_in_every_trip() -> None:
    cohort = cohort_of(100, degree=28, threshold=15, malicious=True)
    floors = replace(cohort.policy, min_degree=28, min_corrupt_share=0.0)
    cohort = replace(cohort, policy=floors)
    order = np.random.default_rng(1).permutation(100).tolist()
    drops = {
        Trip.advertise: order[:10],
        Trip.mask: order[10:20],
        Trip.unmask: order[20:25],
    }
    codes = random_codes(cohort, 1)
    outcome = run_session(cohort, codes, Link(drops=drops))
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, codes[order[20:]].sum(0))


# Client 26 keeps 10 neighbours of 20. Rare: mostly one such client takes all along.
LONELY_LOSSES = [1, 4, 6, 11, 16, 33, 35, 39, 40, 42, 48, 49, 56]


def test_who_is_left_with_too_few_neighbours_is_not_asked_at_all() -> None:
    cohort = cohort_of(60, degree=20, threshold=11)
    cohort = replace(cohort, policy=replace(cohort.policy, min_degree=20))
    codes = random_codes(cohort, 1)
    outcome = run_session(cohort, codes, Link(drops={Trip.advertise: LONELY_LOSSES}))
    kept = sorted(set(range(60)) - {26, *LONELY_LOSSES})
    assert sorted(outcome.server.survivors) == kept
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, codes[kept].sum(0))


def test_a_gap_in_the_ring_ends_the_round_cleanly() -> None:
    cohort = cohort_of(30, degree=10, threshold=6)
    cohort = replace(cohort, policy=replace(cohort.policy, min_degree=2))
    lost = cohort.join(0).neighbours[:5]
    outcome = run_session(
        cohort, random_codes(cohort, 1), Link(drops={Trip.advertise: lost})
    )
    assert outcome.sums is None
    assert "0 of 30 clients sent their keys" in str(outcome.error)
