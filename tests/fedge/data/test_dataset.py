import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.data.dataset import Examples
from fedge.errors import DataError


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 9))
def test_a_draw_keeps_order_and_pairs_and_repeats_nothing(
    size: int, count: int, seed: int
) -> None:
    examples = Examples(np.arange(size) * 10, np.arange(size))
    one, other = (examples.draw(count, np.random.default_rng(seed)) for _ in range(2))
    assert len(one) == min(count, size)
    assert (np.diff(one.targets) > 0).all()
    assert (one.features == one.targets * 10).all()
    assert np.array_equal(one.targets, other.targets)


def test_features_and_targets_come_in_pairs() -> None:
    with pytest.raises(DataError, match="3 examples but 2 targets"):
        Examples(np.zeros(3), np.zeros(2))
