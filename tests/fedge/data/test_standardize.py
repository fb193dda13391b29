import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.data.standardize import standardization


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(-100, 100), st.floats(0.1, 100))
def test_each_channel_gets_mean_zero_and_deviation_one(
    seed: int, mean: float, std: float
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.normal(mean, std, size=(50, 3, 4)).astype(np.float32)
    result = standardization(raw).apply(raw)
    # Six digits of a mean of 100 are 1e-4 off; relative to the smallest std, 1e-3.
    np.testing.assert_allclose(result.mean(axis=(0, 2)), 0.0, atol=2e-3)
    np.testing.assert_allclose(result.std(axis=(0, 2)), 1.0, atol=2e-3)


def test_known_numbers_of_two_integer_columns() -> None:
    scale = standardization(np.array([[0, 10], [4, 10]], np.int16))
    assert scale.mean == (2.0, 10.0)
    assert scale.std == (2.0, 1.0)  # a column that never changes is divided by 1


def test_numbers_have_six_digits() -> None:
    scale = standardization(np.array([[1.0], [0.0], [0.0]]))
    assert scale.mean == (0.333333,)
    assert scale.std == (0.471405,)
