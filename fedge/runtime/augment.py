"""Random changes to a batch of training examples: what is drawn, and numpy's way.

They act on normalized inputs; what moves in at the border repeats the edge, since zero
is not the background of a normalized image. All randomness comes from `rng`, and is
drawn here for PyTorch's way too (fedge/train/augment.py).
"""

from typing import assert_never

import numpy as np

from fedge.arrays import AnyArray, Bool, Float32, Int64
from fedge.config import Augmentation, DataKind, Task, TrainConfig
from fedge.config.fitting import fitting_augmentations
from fedge.errors import ConfigError

_SHIFT_SHARE = 10  # at most a tenth of the side, at least one position
_NOISE = np.float32(0.1)  # normalized inputs have a standard deviation of about 1


def check_augmentation(config: TrainConfig, kind: DataKind, task: Task) -> None:
    """Raise ConfigError if the augmentation makes no sense for such data."""
    fitting = fitting_augmentations(kind, task)
    if config.augment not in fitting:
        raise ConfigError(
            f"train.augment: {config.augment} does not fit {kind} data for {task}; "
            f"choose one of {', '.join(fitting)}"
        )


def draw_flips(num_examples: int, rng: np.random.Generator) -> Bool:
    """Return which examples are flipped, shape (n,)."""
    return rng.random(num_examples) < 0.5


def draw_sources(num_examples: int, side: int, rng: np.random.Generator) -> Int64:
    """Return from which position each position comes, shape (n, side)."""
    largest = max(1, side // _SHIFT_SHARE)
    offsets = rng.integers(-largest, largest, size=(num_examples, 1), endpoint=True)
    sources: Int64 = np.clip(np.arange(side) + offsets, 0, side - 1)
    return sources


def draw_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """Return what is added to the examples."""
    return _NOISE * rng.standard_normal(shape, np.float32)


def augment_arrays(
    batch: AnyArray, how: Augmentation, rng: np.random.Generator
) -> AnyArray:
    """Return a changed copy of the batch, or the batch itself under `none`.

    Guarantee: the bytes, and the draws, of `fedge.train.augment.augment`.

    Args:
        batch: float32 (n, channels, height, width), (n, channels, time) or
            (n, columns); tokens are never changed.
        how: the change, made for each example on its own.
        rng: source of all randomness.
    """
    match how:
        case Augmentation.none:
            return batch
        case Augmentation.shift:
            for axis in range(2, batch.ndim):
                batch = _shifted_along(batch, axis, rng)
            return batch
        case Augmentation.flip:
            chosen = draw_flips(len(batch), rng).reshape(-1, 1, 1, 1)
            return np.where(chosen, batch[..., ::-1], batch)
        case Augmentation.noise:
            noisy: AnyArray = batch + draw_noise(batch.shape, rng)
            return noisy
        case _:
            assert_never(how)


def _shifted_along(batch: AnyArray, axis: int, rng: np.random.Generator) -> AnyArray:
    shape = [len(batch)] + [1] * (batch.ndim - 1)
    shape[axis] = batch.shape[axis]
    sources = draw_sources(len(batch), batch.shape[axis], rng).reshape(shape)
    return np.take_along_axis(batch, sources, axis)
