"""An exact sum: the same bits in any order, close to the real numbers, never a wrap."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.aggregation import ExactSum
from fedge.arrays import AnyArray
from fedge.errors import PeerError

SIZE = 3
LIMIT = 2.0**30
Term = tuple[AnyArray, float]

SINGLES = st.floats(-1e4, 1e4, width=32)
VECTORS = st.lists(SINGLES, min_size=SIZE, max_size=SIZE).map(
    lambda values: np.array(values, np.float32)
)
ANY_WEIGHT = st.floats(1e-6, 1e3)
WHOLE_WEIGHT = st.integers(1, 5_000).map(float)


def terms(weight: st.SearchStrategy[float]) -> st.SearchStrategy[list[Term]]:
    return st.lists(st.tuples(VECTORS, weight), min_size=1, max_size=8)


def sum_of(added: list[Term]) -> ExactSum:
    total = ExactSum(SIZE)
    for vector, weight in added:
        total.add(vector, weight)
    return total


def bits(total: ExactSum) -> tuple[bytes, bytes, float, int]:
    return (
        total.total().tobytes(),
        total.mean().tobytes() if total.num_terms else b"",
        total.weight_sum,
        total.num_terms,
    )


@given(st.data(), terms(ANY_WEIGHT))
@settings(deadline=None, max_examples=100)
def test_the_order_of_the_terms_does_not_change_a_bit(
    data: st.DataObject, added: list[Term]
) -> None:
    other = data.draw(st.permutations(added))
    assert bits(sum_of(added)) == bits(sum_of(other))


@given(st.data(), terms(ANY_WEIGHT))
@settings(deadline=None, max_examples=100)
def test_adding_partial_sums_does_not_change_a_bit(
    data: st.DataObject, added: list[Term]
) -> None:
    worker = data.draw(
        st.lists(st.integers(0, 2), min_size=len(added), max_size=len(added))
    )
    merged = ExactSum(SIZE)
    for index in data.draw(st.permutations(range(3))):
        own = [term for term, who in zip(added, worker, strict=True) if who == index]
        merged.merge(sum_of(own))
    assert bits(merged) == bits(sum_of(added))


def test_weights_that_floats_add_differently_in_another_order_do_not_matter() -> None:
    added = [
        (np.full(SIZE, 0.1, "f4"), weight) for weight in (0.1, 0.2, 0.3, 1e15**0.5)
    ]
    results = {bits(sum_of(list(order))) for order in itertools.permutations(added)}
    assert len(results) == 1


def errors(total: ExactSum, added: list[Term]) -> list[tuple[Fraction, Fraction]]:
    """Return the real-number sum and the error of each coordinate."""
    pairs = []
    for index, got in enumerate(total.total().tolist()):
        real = sum(
            (Fraction(float(v[index])) * Fraction(w) for v, w in added), Fraction()
        )
        pairs.append((real, abs(Fraction(got) - real)))
    return pairs


@given(st.lists(st.tuples(VECTORS, WHOLE_WEIGHT), min_size=1, max_size=8))
@settings(deadline=None, max_examples=100)
def test_the_error_is_at_most_half_a_unit_per_term_for_whole_weights(
    added: list[Term],
) -> None:
    # The result is rounded to a float64, which is exact below 2**21.
    for real, error in errors(sum_of(added), added):
        assert error <= len(added) * Fraction(1, 2**33) + abs(real) / 2**53


@given(terms(ANY_WEIGHT))
@settings(deadline=None, max_examples=100)
def test_any_weight_adds_at_most_the_rounding_of_its_product(added: list[Term]) -> None:
    for index, (real, error) in enumerate(errors(sum_of(added), added)):
        products = sum(abs(Fraction(float(v[index])) * Fraction(w)) for v, w in added)
        bound = len(added) * Fraction(1, 2**33) + (products + abs(real)) / 2**53
        assert error <= bound + Fraction(len(added), 2**80)  # rounding of a rounding


def test_a_mean_known_by_hand() -> None:
    total = sum_of(
        [(np.array([1, 2, 3], "f4"), 1.0), (np.array([3, 2, -1], "f4"), 3.0)]
    )
    assert total.total().tolist() == [10.0, 8.0, 0.0]
    assert total.mean().tolist() == [2.5, 2.0, 0.0]
    assert (total.weight_sum, total.num_terms) == (4.0, 2)


@pytest.mark.parametrize(
    ("vector", "weight", "says"),
    [
        (np.zeros(2, "f4"), 1.0, r"shape \(2,\), need \(3,\)"),
        (np.zeros((3, 1), "f4"), 1.0, r"shape \(3, 1\), need \(3,\)"),
        (np.array([1, np.nan, 1], "f4"), 1.0, "1 of 3 values are not finite"),
        (np.array([1, np.inf, -np.inf], "f4"), 1.0, "2 of 3 values are not finite"),
        (np.ones(3, "f4"), 0.0, r"weight: 0.0 not in \(0, 2\*\*30\)"),
        (np.ones(3, "f4"), -1.0, "weight: -1.0 not in"),
        (np.ones(3, "f4"), float("nan"), "weight: nan not in"),
        (np.ones(3, "f4"), float("inf"), "weight: inf not in"),
        (np.ones(3, "f4"), LIMIT, "weight: 1073741824.0 not in"),
        (np.full(3, LIMIT), 1.0, "does not fit"),
        (np.full(3, -LIMIT), 1.0, "does not fit"),
        (np.full(3, 3e38, "f4"), 1e9, "does not fit"),
        (np.full(3, 1e308), 1e9, "does not fit"),
        (np.full(3, -(2**63), np.int64), 1.0, "does not fit"),
        (np.full(3, 2**64 - 1, np.uint64), 1.0, "does not fit"),
        (np.full(3, -128, np.int8), 1e9, "does not fit"),
        (np.ones(3, np.complex64), 1.0, "dtype complex64, need floats or integers"),
        (np.ones(3, np.bool_), 1.0, "dtype bool, need floats or integers"),
        (np.array([1, 2, 3], object), 1.0, "dtype object, need floats or integers"),
    ],
)
def test_a_bad_term_is_refused_and_changes_nothing(
    vector: AnyArray, weight: float, says: str
) -> None:
    total = sum_of([(np.array([1, -2, 3], "f4"), 2.0)])
    before = bits(total)
    with pytest.raises(PeerError, match=says):
        total.add(vector, weight)
    assert bits(total) == before


def test_many_large_terms_are_refused_before_they_could_overflow() -> None:
    total, large = ExactSum(1), np.array([2.0**28 - 1])
    for _ in range(4):
        total.add(large, 1.0)
    with pytest.raises(PeerError, match="does not fit"):
        total.add(large, 1.0)
    assert total.total().tolist() == [4 * (2.0**28 - 1)]


def test_terms_that_cancel_still_count_towards_the_limit() -> None:
    total = ExactSum(1)
    total.add(np.array([2.0**29]), 1.0)
    total.add(np.array([-(2.0**29)]), 1.0)
    with pytest.raises(PeerError, match="does not fit"):
        total.add(np.array([1.0]), 1.0)
    assert total.total().tolist() == [0.0]


def test_a_partial_sum_that_could_overflow_is_refused_and_changes_nothing() -> None:
    one, other = ExactSum(1), ExactSum(1)
    one.add(np.array([2.0**29]), 1.0)
    other.add(np.array([2.0**29 + 1]), 1.0)
    before = bits(one)
    with pytest.raises(PeerError, match="overflow"):
        one.merge(other)
    assert bits(one) == before


def test_a_partial_sum_of_another_size_is_refused() -> None:
    with pytest.raises(PeerError, match=r"shape \(2,\), need \(3,\)"):
        ExactSum(3).merge(ExactSum(2))


def test_merging_leaves_the_partial_sum_alone() -> None:
    part = sum_of([(np.ones(SIZE, "f4"), 2.0)])
    before, total = bits(part), ExactSum(SIZE)
    total.merge(part)
    total.add(np.ones(SIZE, "f4"), 1.0)
    assert bits(part) == before


def test_an_empty_sum_is_zero_and_has_no_mean() -> None:
    assert ExactSum(2).total().tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="nothing was added"):
        ExactSum(2).mean()


def test_the_vector_that_is_added_is_left_alone() -> None:
    vector = np.array([0.1, 0.2, 0.3], np.float32)
    before = vector.tobytes()
    ExactSum(3).add(vector, 7.0)
    assert vector.tobytes() == before


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i8"])
def test_every_number_type_is_added_by_value(dtype: str) -> None:
    total = ExactSum(2)
    total.add(np.array([3, 5]).astype(dtype), 2.0)
    assert total.total().tolist() == [6.0, 10.0]


def test_a_vector_of_no_values_can_be_added() -> None:
    total = ExactSum(0)
    total.add(np.zeros(0, np.float32), 2.0)
    assert total.mean().shape == (0,)


@given(terms(ANY_WEIGHT), terms(ANY_WEIGHT))
@settings(deadline=None, max_examples=100)
def test_a_sum_made_of_its_parts_goes_on_like_the_sum_itself(
    before: list[Term], after: list[Term]
) -> None:
    units, numbers = sum_of(before).parts()
    again = ExactSum.from_parts(units.copy(), dict(numbers))
    for vector, weight in after:
        again.add(vector, weight)
    assert bits(again) == bits(sum_of([*before, *after]))


def test_parts_remember_how_much_still_fits() -> None:
    total = ExactSum(1)
    total.add(np.array([LIMIT * 0.75]), 1.0)
    again = ExactSum.from_parts(*total.parts())
    with pytest.raises(PeerError, match="does not fit"):
        again.add(np.array([LIMIT / 2]), 1.0)


@given(terms(ANY_WEIGHT))
@settings(deadline=None, max_examples=100)
def test_the_rows_of_a_matrix_are_added_as_if_one_by_one(added: list[Term]) -> None:
    total = ExactSum(SIZE)
    matrix = np.stack([vector for vector, _ in added])
    total.add_many(matrix, np.array([weight for _, weight in added]))
    assert bits(total) == bits(sum_of(added))


@pytest.mark.parametrize(
    ("bad_row", "bad_weight"),
    [(np.nan, 1.0), (np.inf, 1.0), (LIMIT, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, LIMIT)],
)
def test_a_bad_row_leaves_the_sum_unchanged(bad_row: float, bad_weight: float) -> None:
    total, rows = sum_of([(np.ones(SIZE), 1.0)]), np.ones((2, SIZE))
    rows[1, 2] = bad_row
    with pytest.raises(PeerError):
        total.add_many(rows, np.array([1.0, bad_weight]))
    assert bits(total) == bits(sum_of([(np.ones(SIZE), 1.0)]))
