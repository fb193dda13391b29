"""Augmentation: what fits, what changes, what stays."""

import numpy as np
import pytest
import torch

from fedge.config import Augmentation, DataKind, Task, TrainConfig
from fedge.config.fitting import AUGMENTATIONS_BY_KIND
from fedge.errors import ConfigError
from fedge.train.augment import augment, check_augmentation

SHAPES = {
    DataKind.image: (40, 2, 6, 5),
    DataKind.signal: (40, 3, 30),
    DataKind.table: (40, 4),
}
PAIRS = [
    (kind, how)
    for kind, fitting in AUGMENTATIONS_BY_KIND.items()
    for how in fitting
    if how is not Augmentation.none
]
MISFITS = [
    (kind, how)
    for kind in DataKind
    for how in Augmentation
    if how not in AUGMENTATIONS_BY_KIND[kind]
]


def make_batch(kind: DataKind) -> torch.Tensor:
    values = np.random.default_rng(0).standard_normal(SHAPES[kind], np.float32)
    return torch.from_numpy(values)


@pytest.mark.parametrize(("kind", "how"), MISFITS)
def test_what_does_not_fit_is_refused(kind: DataKind, how: Augmentation) -> None:
    with pytest.raises(
        ConfigError, match=rf"train\.augment: {how} does not fit {kind}"
    ):
        check_augmentation(TrainConfig(augment=how), kind, Task.classification)


@pytest.mark.parametrize("how", [Augmentation.shift, Augmentation.flip])
def test_an_image_whose_boxes_are_known_is_not_moved(how: Augmentation) -> None:
    config = TrainConfig(augment=how)
    with pytest.raises(ConfigError, match=rf"{how} does not fit .* detection"):
        check_augmentation(config, DataKind.image, Task.detection)


@pytest.mark.parametrize(("kind", "how"), PAIRS)
def test_what_fits_changes_a_copy_reproducibly(
    kind: DataKind, how: Augmentation
) -> None:
    check_augmentation(TrainConfig(augment=how), kind, Task.classification)
    batch = make_batch(kind)
    one, same = (augment(batch, how, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(one, same)
    assert (one.shape, one.dtype) == (batch.shape, batch.dtype)
    assert not torch.equal(one, batch)
    assert torch.equal(batch, make_batch(kind))


def test_none_gives_the_batch_itself() -> None:
    batch = make_batch(DataKind.table)
    assert augment(batch, Augmentation.none, np.random.default_rng(0)) is batch


def test_flip_mirrors_about_half_of_the_images() -> None:
    batch = make_batch(DataKind.image)
    result = augment(batch, Augmentation.flip, np.random.default_rng(0))
    mirrored = (result == batch.flip(-1)).flatten(1).all(1)
    same = (result == batch).flatten(1).all(1)
    assert torch.all(mirrored ^ same)
    assert 10 <= int(mirrored.sum()) <= 30  # 40 fair coins: 3 deviations are 9.5


def test_shift_moves_each_signal_by_at_most_a_tenth_and_repeats_the_edge() -> None:
    batch = make_batch(DataKind.signal)
    result = augment(batch, Augmentation.shift, np.random.default_rng(0))
    padded = torch.nn.functional.pad(batch, (3, 3), mode="replicate")
    candidates = torch.stack([padded[..., start : start + 30] for start in range(7)])
    fits = (candidates == result).flatten(2).all(2)
    assert torch.all(fits.any(0))
    assert torch.all(fits.any(1))  # 40 signals: every shift occurs


def test_noise_is_a_tenth_of_a_deviation() -> None:
    batch = torch.zeros(1000, 10)
    noise = augment(batch, Augmentation.noise, np.random.default_rng(0))
    assert abs(noise.std().item() - 0.1) < 0.003  # 4 standard errors of 10000 draws
