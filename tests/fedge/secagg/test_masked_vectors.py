"""What goes over the wire looks random, whatever is under it, and never repeats."""

from collections.abc import Callable

import numpy as np
import pytest

from fedge.arrays import AnyArray, Int64
from fedge.secagg.client import ClientState
from fedge.secagg.packing import unpack
from fedge.secagg.policy import Counter
from tests.fedge.secagg.halfway import advertised
from tests.fedge.secagg.pairs import (
    Cohort,
    Link,
    Outcome,
    Trip,
    cohort_of,
    random_codes,
    run_session,
)
from tests.fedge.secagg.randomness import chi_square_of_bytes, linear_complexity

# Twice the state of the Mersenne Twister (19,937 bits), which would show.
LENGTH = 41_000


def masked_vectors(cohort: Cohort, codes: AnyArray) -> tuple[AnyArray, Outcome]:
    """Return what each client sends, as ring elements; shape (n, m)."""
    sent: dict[int, bytes] = {}

    def keep(place: int) -> Callable[[bytes], bytes]:
        return lambda data: sent.setdefault(place, data)

    changes = {(Trip.mask, place): keep(place) for place in cohort.places}
    outcome = run_session(cohort, codes, Link(changes=changes))
    proposed = cohort.descriptor
    rows = [unpack(sent[p], proposed.vector_size, proposed.profile) for p in sent]
    return np.stack(rows), outcome


def test_two_rounds_with_equal_inputs_are_unrelated() -> None:
    codes = np.full((5, 4_000), 7)
    (first, _), (second, _) = (
        masked_vectors(cohort_of(5, size=4_000, counter=Counter(1, i, 0)), codes)
        for i in range(2)
    )
    again, _ = masked_vectors(cohort_of(5, size=4_000), codes)
    for one, other in ((first, second), (first, again), (first[:1], first[1:2])):
        x, y = (row.astype(np.float64).ravel() - 2.0**23 for row in (one, other))
        # Three standard deviations of 20,000 (at least 4,000) pairs are below 0.05.
        assert abs(float(x @ y)) < 0.05 * float(np.sqrt((x @ x) * (y @ y)))
        assert (one == other).mean() < 0.01


def test_no_key_masks_twice_in_fifty_sessions() -> None:
    cohort = cohort_of(4)
    codes = random_codes(cohort, 0)
    seen: set[bytes] = set()
    for number in range(50):
        # Every second attempt is abandoned after the masked updates, as in a crash.
        attempt = cohort.proposing(round_index=number // 2, attempt=number % 2)
        session = advertised(attempt, codes)
        used = {
            unpacked_mask(session.answer(Trip.mask, p, session.asked[p]), attempt, c)
            for p, c in enumerate(codes)
        }
        assert len(used) == 4
        assert not used & seen
        seen |= used


def unpacked_mask(
    answer: tuple[ClientState, bytes], cohort: Cohort, codes: Int64
) -> bytes:
    """Return the sum of the masks that a client added: equal only for equal keys."""
    proposed = cohort.descriptor
    vector = unpack(answer[1], proposed.vector_size, proposed.profile)
    mask: AnyArray = (vector.astype(np.int64) - codes) % 2**proposed.profile.ring_bits
    return mask.tobytes()


@pytest.mark.parametrize("value", [0, 32_767, -32_767])
@pytest.mark.parametrize("slow", [[], [0, 1, 2]])
def test_a_masked_constant_looks_random_in_every_bit(
    value: int, slow: list[int]
) -> None:
    cohort = cohort_of(3, size=LENGTH, slow=slow)
    vectors, _ = masked_vectors(cohort, np.full((3, LENGTH), value))
    difference = (vectors[0] - vectors[1]) % 2**24
    for vector in (vectors[0], vectors[2], difference):
        for shift in (0, 8, 16):
            # 255 +- 23; six standard deviations.
            assert 120 < chi_square_of_bytes(vector >> shift) < 390


@pytest.mark.parametrize("bit", [0, 23])
def test_a_masked_constant_is_not_linear(bit: int) -> None:
    vectors, _ = masked_vectors(cohort_of(3, size=LENGTH), np.zeros((3, LENGTH), int))
    bits = ((vectors[0] >> bit) & 1).tolist()
    # Random bits: half their number, give or take a few.
    assert abs(linear_complexity(bits) - LENGTH // 2) < 40
