import numpy as np

from fedge.config import Task
from fedge.data.check import check_data
from fedge.data.diabetes import load_diabetes


def test_diabetes_has_the_promised_shapes_and_passes_the_checks() -> None:
    data = load_diabetes()
    assert data.train.features.shape == (354, 10)
    assert data.test.features.shape == (88, 10)
    assert data.info.task is Task.regression
    check_data(data)


def test_targets_are_standardized_with_the_training_part() -> None:
    data = load_diabetes()
    assert data.train.targets.dtype == np.float32
    # Mean and deviation are rounded to six digits.
    np.testing.assert_allclose(data.train.targets.mean(), 0.0, atol=1e-5)
    np.testing.assert_allclose(data.train.targets.std(), 1.0, atol=1e-5)


def test_features_keep_their_units_until_they_are_normalized() -> None:
    data = load_diabetes()
    age = data.train.features[:, 0]
    assert 18 <= age.min() <= age.max() <= 100
    inputs = data.info.normalization.apply(data.train.features)
    np.testing.assert_allclose(inputs.std(axis=0), 1.0, atol=1e-4)


def test_a_straight_line_explains_some_of_the_held_out_targets() -> None:
    data = load_diabetes()
    normalize = data.info.normalization.apply
    weights, *_ = np.linalg.lstsq(
        normalize(data.train.features), data.train.targets, rcond=None
    )
    error = normalize(data.test.features) @ weights - data.test.targets
    assert np.var(error) < 0.75 * np.var(data.test.targets)
