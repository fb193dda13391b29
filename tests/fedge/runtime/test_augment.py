import numpy as np
import pytest
import torch

from fedge.config import Augmentation
from fedge.runtime.augment import augment_arrays
from fedge.train.augment import augment

SHAPES: dict[Augmentation, list[tuple[int, ...]]] = {
    Augmentation.none: [(5, 2, 6, 7)],
    Augmentation.shift: [(5, 2, 6, 7), (5, 3, 31)],
    Augmentation.flip: [(5, 2, 6, 7)],
    Augmentation.noise: [(5, 2, 6, 7), (5, 9)],
}
CASES = [(how, shape) for how, shapes in SHAPES.items() for shape in shapes]


@pytest.mark.parametrize(("how", "shape"), CASES)
def test_numpy_and_torch_change_a_batch_alike(
    how: Augmentation, shape: tuple[int, ...]
) -> None:
    batch = np.random.default_rng(0).standard_normal(shape, np.float32)
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    found = augment_arrays(batch, how, rng)
    expected = augment(torch.from_numpy(batch), how, other).numpy()
    assert found.tobytes() == expected.tobytes()
    assert rng.integers(1 << 30) == other.integers(1 << 30)
