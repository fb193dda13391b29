import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.arrays import Float64
from fedge.runtime.ranges import BOUND, Ranges, decode, encode

BOUNDS = st.floats(-2 * BOUND, 2 * BOUND)


def pair(low: float, high: float) -> tuple[Float64, Float64]:
    return np.array([low]), np.array([high])


@given(first=BOUNDS, second=BOUNDS)
def test_a_range_comes_back_clipped_to_the_bound(first: float, second: float) -> None:
    low, high = pair(min(first, second), max(first, second))
    places = encode(low, high)
    assert (np.abs(places) <= 1.0).all()
    assert places[0] <= places[1]
    found = decode(places.astype(np.float64))
    wanted = np.clip(np.stack([low, high]), -BOUND, BOUND)
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-8)


@given(low=BOUNDS, more=st.floats(0, BOUND))
def test_the_order_of_bounds_is_kept(low: float, more: float) -> None:
    places = encode(*pair(low, low + more))
    assert places[0] <= places[1]


def test_zero_stays_zero() -> None:
    # The least value behind a ReLU: its code must be exact.
    assert decode(encode(*pair(0.0, 1.0)).astype(np.float64))[0] == 0.0


@pytest.mark.parametrize(
    ("low", "high"),
    [(np.nan, 1.0), (0.0, np.nan), (-np.inf, 0.0), (0.0, np.inf), (1.0, 0.5)],
)
def test_what_is_no_range_is_not_sent(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="not finite, or a range is inverted"):
        encode(*pair(low, high))


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 0.0), (np.nan, 1.0), (0.0, np.inf), (-BOUND - 1, 0.0)]
)
def test_ranges_are_in_order_and_within_the_bound(low: float, high: float) -> None:
    bounds = np.array([low], np.float32), np.array([high], np.float32)
    with pytest.raises(ValueError, match="'relu' is inverted, not finite or beyond"):
        Ranges(("relu",), *bounds)


def test_every_tensor_has_one_range() -> None:
    with pytest.raises(ValueError, match="for 2 tensors"):
        Ranges(("a", "b"), np.zeros(1, np.float32), np.zeros(1, np.float32))
