"""What strategies are given, against the obvious way to compute it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.aggregation import UpdateMatrix, WeightedSum
from fedge.errors import RoundAbortedError


def test_a_mean_known_by_hand() -> None:
    assert WeightedSum(np.array([2.0, -4.0]), 4.0).mean().tolist() == [0.5, -1.0]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_round_without_weight_is_aborted(weight: float) -> None:
    with pytest.raises(RoundAbortedError, match="no weight"):
        WeightedSum(np.ones(2), weight).mean()


@given(st.integers(1, 9), st.integers(0, 6), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_the_total_is_the_weighted_sum_of_the_rows(
    num_rows: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = UpdateMatrix(
        deltas=rng.normal(0.0, 1.0, (num_rows, size)).astype(np.float32),
        weights=rng.integers(1, 500, num_rows).astype(np.float64),
        losses=rng.uniform(size=num_rows),
    )
    total = matrix.total()
    expected = [
        math.fsum(w * v for w, v in zip(matrix.weights, column, strict=True))
        for column in matrix.deltas.T.astype(np.float64)
    ]
    assert total.delta_sum.dtype == np.float64
    assert total.delta_sum.shape == (size,)
    # Each of n additions rounds once; a partial sum is at most sum(|w * v|).
    scale = np.abs(matrix.weights[:, None] * matrix.deltas).sum(axis=0)
    bound = num_rows * np.finfo(np.float64).eps * scale
    assert (np.abs(total.delta_sum - expected) <= bound).all()
    assert total.weight_sum == math.fsum(matrix.weights)


def test_a_total_of_nobody_has_no_mean() -> None:
    nobody = UpdateMatrix(np.zeros((0, 2), np.float32), np.zeros(0), np.zeros(0))
    with pytest.raises(RoundAbortedError):
        nobody.total().mean()
