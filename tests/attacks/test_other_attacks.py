"""What clients, networks, numbers and an honest but curious server can do.

`python -m tests.attacks.table` makes docs/attacks.md of these docstrings.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.errors import MisuseError, PeerError, RoundAbortedError
from fedge.flower import LocalGrid, secure_mod
from fedge.flower.records import array_of
from fedge.secagg.keystream import MAX_MASK_BYTES, MaskSeed, Suite, check_mask_length
from fedge.secagg.messages import shares_from_bytes, shares_to_bytes
from fedge.secagg.packing import pack, unpack
from fedge.secagg.ring import PROFILES, decode_sum
from fedge.secagg.session import MAX_VECTOR_SIZE
from fedge.secagg.vector import Scale, decode_total, encode_update, vector_size
from tests.fedge.secagg.halfway import masked
from tests.fedge.secagg.pairs import (
    Link,
    Trip,
    cohort_of,
    random_codes,
    run_session,
)
from tests.fedge.secagg.randomness import linear_complexity

SCALE = Scale(PROFILES["r24"], 1.0, 16.0)


def test_a_mask_is_not_the_output_of_a_linear_generator() -> None:
    """Whoever sees masked updates solves for the generator's state.

    Row: A1
    Closed by: masks are AES-256-CTR or ChaCha20 keystreams under 256-bit keys.
    """
    size = 41_000  # twice the 19,937 bits of the Mersenne Twister
    cohort = cohort_of(3, size=size)
    session = masked(cohort, np.zeros((3, size), np.int64))
    vector = unpack(session.sent[0], size, cohort.descriptor.profile)
    assert abs(linear_complexity((vector & 1).tolist()) - size // 2) < 40


def test_a_cohort_that_would_overflow_the_ring_is_refused() -> None:
    """So many clients that their sum wraps around without a trace.

    Row: A9
    Closed by: PeerError; n Q < 2^(R-1) or there is no session.
    """
    cohort = cohort_of(9)
    narrow = replace(PROFILES["r16"], value_bits=14)
    with pytest.raises(PeerError, match="overflow"):
        cohort.proposing(profile=narrow).join(0)


def test_clipping_is_reported_and_not_silent() -> None:
    """Values beyond the clip give the same sum as values at the clip.

    Row: A10
    Closed by: the share of clipped coordinates is summed and reported.
    """
    update = np.array([9.0, -9.0, 0.0, 0.5], np.float32)
    sums = decode_sum(encode_update(update, 8.0, [], SCALE), SCALE.profile)
    decoded = decode_total(sums, 4, SCALE, num_survivors=1)
    assert decoded.clipped_fraction == pytest.approx(0.5, abs=1e-3)


def test_weights_and_metrics_are_nowhere_on_the_wire() -> None:
    """The server reads numbers of examples and losses beside the masked update.

    Row: A11
    Closed by: both are masked coordinates; no message holds them or the codes.
    """
    size = vector_size(40, 1)
    cohort = cohort_of(5, size=size)
    updates = np.random.default_rng(0).normal(0.0, 0.2, (5, 40)).astype(np.float32)
    rows = [
        encode_update(update, 3.0 + place, [0.25 * place], SCALE)
        for place, update in enumerate(updates)
    ]
    link = Link()
    codes = np.stack([decode_sum(row, SCALE.profile) for row in rows])
    outcome = run_session(cohort, codes, link)
    assert outcome.error is None
    wire = b"|".join(link.wire)
    for row, update in zip(rows, updates, strict=True):
        packed = pack(row, SCALE.profile)
        secrets = [packed[i : i + 6] for i in range(0, len(packed) - 6, 6)]
        secrets += [row[41:43].tobytes(), update[:2].tobytes()]
        assert not [secret for secret in secrets if secret in wire]


@pytest.mark.parametrize("trip", [Trip.advertise, Trip.mask, Trip.unmask])
def test_a_dropout_in_any_trip_costs_nothing_but_itself(trip: Trip) -> None:
    """A client vanishes before, between or after the key shares.

    Row: A13
    Closed by: masks only with whose keys arrived; the sum stays exact.
    """
    cohort = cohort_of(7)
    codes = random_codes(cohort, 0)
    outcome = run_session(cohort, codes, Link(drops={trip: [2]}))
    kept = list(range(7)) if trip is Trip.unmask else [0, 1, 3, 4, 5, 6]
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, codes[kept].sum(0))


def spoil(degree: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        shares = shares_from_bytes(data, degree=degree)
        return shares_to_bytes(
            {i: bytes([s[0] ^ 1]) + s[1:] for i, s in shares.items()}
        )

    return change


def test_a_client_with_wrong_shares_is_overruled_and_named() -> None:
    """A client answers with wrong shares, to spoil the sum unseen.

    Row: A15
    Closed by: commitments; other shares are taken, and the client is named.
    """
    cohort = cohort_of(20, threshold=13)
    codes = random_codes(cohort, 0)
    outcome = run_session(cohort, codes, Link(changes={(Trip.unmask, 0): spoil(19)}))
    assert outcome.sums is not None
    np.testing.assert_array_equal(outcome.sums, codes.sum(0))
    assert outcome.server.culprits == {0}


def test_too_many_wrong_shares_end_the_round_with_nothing() -> None:
    """So many clients lie that no secret can be recovered.

    Row: A15
    Closed by: RoundAbortedError; a spoilt sum is never returned.
    """
    cohort = cohort_of(7)
    link = Link(changes={(Trip.unmask, p): spoil(6) for p in range(4)})
    outcome = run_session(cohort, random_codes(cohort, 0), link)
    assert outcome.sums is None
    assert isinstance(outcome.error, RoundAbortedError)
    with pytest.raises(MisuseError):
        outcome.server.finish()


def test_a_counter_never_wraps_around() -> None:
    """A vector so long that the cipher's block counter begins anew.

    Row: A17
    Closed by: MisuseError; and no session may be that long.
    """
    with pytest.raises(MisuseError, match="counter would repeat"):
        check_mask_length(MAX_MASK_BYTES)
    assert 4 * MAX_VECTOR_SIZE < MAX_MASK_BYTES
    with pytest.raises(MisuseError, match="mask key"):
        MaskSeed(bytes(16), Suite.CHACHA20, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_never_reaches_the_sum(bad: float) -> None:
    """One client's training diverges, or it sends NaN on purpose.

    Row: NaN
    Closed by: ValueError on the device; codes on the wire are integers in any case.
    """
    with pytest.raises(ValueError, match="finite"):
        encode_update(np.array([0.0, bad], np.float32), 1.0, [], SCALE)


def plain_app() -> ClientApp:
    app = ClientApp(mods=[secure_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = ArrayRecord({"w": array_of(np.ones(3, np.float32))})
        metrics = MetricRecord({"num-examples": 3})
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def test_a_server_that_skips_secure_aggregation_gets_nothing() -> None:
    """The server sends a plain training message and waits for the update.

    Row: skip
    Closed by: PeerError; the device answers training inside sessions only.
    """
    grid = LocalGrid(plain_app(), num_clients=3)
    arrays = ArrayRecord({"w": array_of(np.zeros(3, np.float32))})
    asked = [
        Message(RecordDict({"arrays": arrays}), node, "train")
        for node in grid.get_node_ids()
    ]
    replies = list(grid.send_and_receive(asked))
    assert len(replies) == 3
    for reply in replies:
        assert reply.has_error()
        assert "under secure aggregation only" in (reply.error.reason or "")
