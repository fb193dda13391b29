import numpy as np

from fedge.data.check import check_data
from fedge.data.digits import load_digits


def test_digits_have_the_promised_shapes_and_pass_the_checks() -> None:
    data = load_digits()
    assert data.train.features.shape == (1438, 1, 8, 8)
    assert data.test.features.shape == (359, 1, 8, 8)
    assert data.train.features.dtype == np.uint8
    assert int(data.train.features.max()) == 16
    check_data(data)


def test_every_digit_is_held_out_in_the_same_share() -> None:
    data = load_digits()
    held_out = np.bincount(data.test.targets, minlength=10)
    all_of_them = held_out + np.bincount(data.train.targets, minlength=10)
    np.testing.assert_allclose(held_out, 0.2 * all_of_them, atol=0.5)


def test_digits_are_the_same_each_time() -> None:
    first, second = load_digits(), load_digits()
    np.testing.assert_array_equal(first.train.features, second.train.features)
    np.testing.assert_array_equal(first.test.targets, second.test.targets)


def test_images_belong_to_their_targets() -> None:
    # The mean image of each class must recognize most of the held-out digits.
    data = load_digits()
    train, test = data.train, data.test
    means = np.stack(
        [train.features[train.targets == k].mean(axis=0).ravel() for k in range(10)]
    )
    pixels = test.features.reshape(len(test), -1).astype(np.float64)
    distances = np.linalg.norm(pixels[:, np.newaxis] - means, axis=2)
    assert np.mean(distances.argmin(axis=1) == test.targets) > 0.85
