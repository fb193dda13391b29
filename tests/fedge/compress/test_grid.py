import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedge.arrays import Float32
from fedge.compress.grid import best_scales, to_codes

ROWS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=30),
    elements=st.floats(-10, 10, width=32),
)


def error_of(rows: Float32, scales: Float32, limit: int) -> Float32:
    restored = to_codes(rows, scales, limit) * scales
    result: Float32 = np.square(restored - rows).sum(axis=1)
    return result


@settings(deadline=None)
@given(ROWS, st.sampled_from([7, 64, 127]))
def test_codes_are_the_nearest_and_zeros_stay_zeros(rows: Float32, limit: int) -> None:
    scales = best_scales(rows, limit)
    codes = to_codes(rows, scales, limit)
    assert (scales > 0).all()
    assert np.abs(codes).max() <= limit
    assert not codes[rows == 0.0].any()
    inside = np.abs(rows) <= limit * scales
    error = np.abs(codes * scales - rows)
    assert (error[inside] <= 0.501 * np.broadcast_to(scales, rows.shape)[inside]).all()


@settings(deadline=None)
@given(ROWS)
def test_the_error_is_no_larger_than_with_the_scale_of_the_largest_value(
    rows: Float32,
) -> None:
    widest = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 7, 1e-30)
    found = error_of(rows, best_scales(rows, 7), 7)
    assert (found <= error_of(rows, widest.astype(np.float32), 7) * 1.001 + 1e-6).all()


def test_a_normal_row_is_cut_for_four_bits_and_not_for_seven() -> None:
    row = np.random.default_rng(0).normal(size=(1, 4000)).astype(np.float32)
    largest = np.abs(row).max()
    assert best_scales(row, 7)[0, 0] < 0.8 * largest / 7
    assert best_scales(row, 64)[0, 0] > 0.9 * largest / 64


def test_a_row_of_zeros_and_one_of_tiny_values_become_zeros() -> None:
    rows = np.array([[0.0, 0.0], [1e-40, -1e-41]], np.float32)
    assert not to_codes(rows, best_scales(rows, 7), 7).any()
