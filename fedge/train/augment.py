"""Random changes to a batch of training examples, made on the device.

They act on normalized inputs; what moves in at the border repeats the edge, since zero
is not the background of a normalized image. All randomness comes from `rng`.
"""

from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from fedge.config import Augmentation, DataKind, Task, TrainConfig
from fedge.config.fitting import fitting_augmentations
from fedge.errors import ConfigError

_SHIFT_SHARE = 10  # at most a tenth of the side, at least one position
_NOISE = 0.1  # normalized inputs have a standard deviation of about 1


def check_augmentation(config: TrainConfig, kind: DataKind, task: Task) -> None:
    """Raise ConfigError if the augmentation makes no sense for such data."""
    fitting = fitting_augmentations(kind, task)
    if config.augment not in fitting:
        raise ConfigError(
            f"train.augment: {config.augment} does not fit {kind} data for {task}; "
            f"choose one of {', '.join(fitting)}"
        )


def augment(batch: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    """Return a changed copy of the batch, or the batch itself under `none`.

    Guarantee: same shape and type; equal generators give equal results.

    Args:
        batch: float32 (n, channels, height, width), (n, channels, time) or
            (n, columns).
        how: the change, made for each example on its own.
        rng: source of all randomness.
    """
    match how:
        case Augmentation.none:
            return batch
        case Augmentation.shift:
            return _shifted(batch, rng)
        case Augmentation.flip:
            chosen = torch.from_numpy(rng.random(len(batch)) < 0.5).to(batch.device)
            return torch.where(chosen.view(-1, 1, 1, 1), batch.flip(-1), batch)
        case Augmentation.noise:
            noise = rng.standard_normal(tuple(batch.shape), np.float32)
            return batch + _NOISE * torch.from_numpy(noise).to(batch.device)
        case _:
            assert_never(how)


def _shifted(batch: Tensor, rng: np.random.Generator) -> Tensor:
    for axis in range(2, batch.ndim):
        batch = _shifted_along(batch, axis, rng)
    return batch


def _shifted_along(batch: Tensor, axis: int, rng: np.random.Generator) -> Tensor:
    side = batch.shape[axis]
    largest = max(1, side // _SHIFT_SHARE)
    offsets = rng.integers(-largest, largest, size=(len(batch), 1), endpoint=True)
    source = np.clip(np.arange(side) + offsets, 0, side - 1)
    shape = [len(batch)] + [1] * (batch.ndim - 1)
    shape[axis] = side
    index = torch.from_numpy(source).to(batch.device).view(shape).expand(batch.shape)
    return batch.gather(axis, index)
