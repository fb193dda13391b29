"""A server that attacks: what it tries, and where it fails.

`python -m tests.attacks.table` makes docs/attacks.md of these docstrings.
"""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from fedge.errors import PeerError, RoundAbortedError
from fedge.secagg.identity import SigningKey
from fedge.secagg.packing import unpack
from fedge.secagg.policy import Counter
from fedge.secagg.ring import decode_sum
from fedge.secagg.roster import Roster, enroll
from fedge.secagg.transitions import ClientPhase
from fedge.secagg.vector import Scale, decode_total, encode_update, vector_size
from tests.fedge.secagg.halfway import advertised, masked
from tests.fedge.secagg.pairs import Link, Trip, cohort_of, random_codes, run_session
from tests.fedge.secagg.people import NOT_AFTER

COHORT = cohort_of(7)
EVERYBODY = frozenset(range(7))


def test_a_client_gives_only_one_of_a_peers_two_shares() -> None:
    """The server asks twice, naming a peer alive and then dead.

    Row: A2
    Closed by: PeerError; one share per peer, one answer per session.
    """
    session = masked(COHORT)
    state, _ = session.answer(Trip.unmask, 0, session.unmask_for(EVERYBODY))
    again = replace(session, states={**session.states, 0: state})
    with pytest.raises(PeerError, match="while this client is done"):
        again.answer(Trip.unmask, 0, session.unmask_for(EVERYBODY - {1}))


def test_split_survivor_sets_never_give_both_secrets_of_anybody() -> None:
    """The server tells some clients that the victim is alive, and others that it died.

    Row: A3
    Closed by: 2 t > k + c; whichever way it splits them, one secret stays short.
    """
    session, victim = masked(COHORT), 6
    threshold = COHORT.descriptor.threshold
    told_dead = EVERYBODY - {victim}
    for alive_side in range(7):
        for sayers in combinations(sorted(told_dead), alive_side):
            seeds = [p for p in sayers if victim in session.shares(p, EVERYBODY)]
            keys = told_dead - set(sayers)
            assert len(seeds) < threshold or len(keys) < threshold


def test_of_two_survivor_sets_only_one_gets_enough_signatures() -> None:
    """The server asks half of the clients to sign one survivor set, half another.

    Row: A3
    Closed by: PeerError; a client signs once, and a set needs a majority.
    """
    session = masked(cohort_of(7, malicious=True))
    sets = {True: EVERYBODY, False: EVERYBODY - {6}}
    states, signatures = {}, {True: dict[int, bytes](), False: dict[int, bytes]()}
    for place in range(6):
        side = place < 3
        bitmap = session.unmask_for(sets[side])
        states[place], signatures[side][place] = session.answer(
            Trip.confirm, place, bitmap
        )
    later = replace(session, states=states)
    for side, survivors in sets.items():
        request = later.unmask_for(survivors, signatures[side])
        with pytest.raises(PeerError, match="3 signatures, need 4"):
            later.answer(Trip.unmask, 0, request)
    with pytest.raises(PeerError, match="while this client is confirmed"):
        later.answer(Trip.confirm, 0, session.unmask_for(sets[False]))


def test_different_neighbour_lists_do_not_cut_a_cohort_in_two() -> None:
    """The server shows a client only some of the keys, so that few masks must cancel.

    Row: A3
    Closed by: PeerError; every surviving neighbour must have been in the list.
    """
    session = advertised(COHORT)
    data = session.only_peers(0, {1, 2, 3, 4, 5})
    state, _ = session.answer(Trip.mask, 0, data)
    cut = replace(session, states={**session.states, 0: state})
    with pytest.raises(PeerError, match="never sent its shares"):
        cut.answer(Trip.unmask, 0, cut.unmask_for(EVERYBODY))


def test_a_key_that_the_server_puts_in_between_is_refused() -> None:
    """The server hands out its own mask key under a peer's name.

    Row: A4
    Closed by: PeerError; every key is signed by its owner's certified identity.
    """
    session = advertised(COHORT)
    own = SigningKey.generate().public
    data = session.with_peers(0, lambda peer: replace(peer, mask_key=own))
    with pytest.raises(PeerError, match="signature is not valid"):
        session.answer(Trip.mask, 0, data)


def test_invented_participants_are_refused() -> None:
    """The server fills the roster with participants of its own.

    Row: A4
    Closed by: PeerError; it does not hold the enrolment key.
    """
    own = SigningKey.generate()
    invented = [
        enroll(own, uid=900 + i, caps=1, not_after=NOT_AFTER).member for i in range(5)
    ]
    honest = [each.member for each in COHORT.people[:2]]
    roster = Roster([*honest, *invented])
    sybil = replace(COHORT, roster=roster).proposing(roster_digest=roster.digest())
    with pytest.raises(PeerError, match="not from this enrolment key"):
        sybil.join(0)


def test_a_victim_with_another_model_adds_noise_and_shows_nothing() -> None:
    """The server gives one client another model, to see its update in the sum.

    Row: A5
    Closed by: PeerError and RoundAbortedError; keys and boxes of another session do
        not fit, and masks of different sessions do not cancel.
    """
    size = vector_size(400, 0)
    honest = cohort_of(5, size=size)
    other = honest.proposing(model_digest=bytes(32))
    session, victim = advertised(honest), advertised(other)
    with pytest.raises(PeerError, match="signature is not valid"):
        session.answer(Trip.mask, 0, victim.asked[0])
    scale = Scale(honest.descriptor.profile, 1.0, 16.0)
    vectors = []
    for place in honest.places:
        there = victim if place == 4 else session
        _, data = there.answer(Trip.mask, place, there.asked[place])
        vectors.append(unpack(data, size, scale.profile))
    garbage = decode_sum(np.sum(vectors, axis=0, dtype=np.uint32), scale.profile)
    with pytest.raises(RoundAbortedError):
        decode_total(garbage, 400, scale, num_survivors=5)
    update = random_codes(honest, 0)[4]
    assert np.mean(np.abs(garbage - update) < 2**15) < 0.05


def test_a_model_that_is_not_the_proposed_one_is_refused() -> None:
    """The server proposes one model and sends another.

    Row: A5
    Closed by: PeerError; the client hashes what it really got.
    """
    with pytest.raises(PeerError, match="another model"):
        COHORT.join(0, model=bytes(32))


def test_a_session_cannot_be_repeated() -> None:
    """The server runs the same round again, to get the same masks a second time.

    Row: A6
    Closed by: PeerError; counters only grow, and every session draws fresh keys.
    """
    session = COHORT.join(0)
    with pytest.raises(PeerError, match="already seen"):
        COHORT.join(0, last=Counter.of(session.descriptor))
    codes = random_codes(COHORT, 0)[0]
    (one, sent), (other, sent_again) = (COHORT.advertise(0, codes) for _ in range(2))
    assert one.mask_key != other.mask_key
    assert one.seed != other.seed
    assert sent[:64] != sent_again[:64]


@pytest.mark.parametrize("survivors", [{0, 1}, {0, 1, 2, 3}])
def test_a_cohort_cannot_be_shrunk_until_it_shows_somebody(survivors: set[int]) -> None:
    """The server declares almost everybody dead, or proposes a tiny cohort.

    Row: A7
    Closed by: PeerError; each client has floors of its own for both.
    """
    careful = cohort_of(7, min_survivors=5)
    session = masked(careful)
    with pytest.raises(PeerError, match="need 5"):
        session.answer(Trip.unmask, 0, session.unmask_for(survivors))
    small = replace(cohort_of(3), policy=careful.policy)
    with pytest.raises(PeerError, match="sums of 3"):
        small.join(0)


def test_a_late_update_of_a_client_declared_dead_stays_closed() -> None:
    """The server keeps an update back, recovers the client's key, then takes it out.

    Row: A14
    Closed by: the self mask; its seed is never shared out for who is declared dead.
    """
    cohort, late = cohort_of(7, size=4_000), 6
    codes = np.zeros((7, 4_000), np.int64)
    session = masked(cohort, codes)
    survivors = EVERYBODY - {late}
    shares = [session.shares(p, survivors)[late] for p in survivors]
    kept = [session.states[p].shares[late] for p in sorted(survivors)]
    assert sorted(shares) == sorted(key for _, key in kept)
    assert not {seed for seed, _ in kept} & set(shares)
    outcome = run_session(cohort, codes, Link(drops={Trip.mask: [late]}))
    with pytest.raises(PeerError, match="answered masking in done"):
        outcome.server.receive_masked(late, session.sent[late])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"degree": 4, "threshold": 3}, "4 neighbours"),
        ({"threshold": 3}, "more than half"),
        ({"max_corrupt": 4}, "more than half"),
    ],
)
def test_a_graph_or_threshold_that_helps_the_server_is_refused(
    changes: dict[str, int], reason: str
) -> None:
    """The server proposes few neighbours or a low threshold.

    Row: A16
    Closed by: PeerError; floors of the client's own policy, and 2 t > k + c.
    """
    with pytest.raises(PeerError, match=reason):
        COHORT.proposing(**changes).join(0)


def test_neighbours_are_derived_and_not_believed() -> None:
    """The server hands out keys of somebody who is no neighbour in the graph.

    Row: A16
    Closed by: PeerError; each client derives the graph from public values.
    """
    sparse = cohort_of(9, degree=4, threshold=3)
    sparse = replace(sparse, policy=replace(sparse.policy, min_degree=4))
    session = advertised(sparse)
    stranger = min(set(range(1, 9)) - set(sparse.join(0).neighbours))
    data = session.with_peers(0, lambda peer: replace(peer, index=stranger))
    with pytest.raises(PeerError, match="is no neighbour"):
        session.answer(Trip.mask, 0, data)
    assert session.states[0].phase is ClientPhase.fitted


def test_a_clip_that_turns_updates_into_garbage_is_refused() -> None:
    """The server proposes a clip so small that scaling overflows.

    Row: A10
    Closed by: PeerError; clip and weight have bounds.
    """
    with pytest.raises(PeerError, match="clip"):
        COHORT.proposing(clip=5e-324).join(0)
    scale = Scale(COHORT.descriptor.profile, 1.0, 16.0)
    assert encode_update(np.zeros(3, np.float32), 1.0, [], scale).size == 6
