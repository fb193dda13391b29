"""Random changes to a batch of training examples, made on the device.

What is drawn, and the same in numpy: fedge/runtime/augment.py.
"""

from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from fedge.config import Augmentation
from fedge.runtime.augment import (
    check_augmentation,
    draw_flips,
    draw_noise,
    draw_sources,
)

__all__ = ["augment", "check_augmentation"]


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
            chosen = torch.from_numpy(draw_flips(len(batch), rng)).to(batch.device)
            return torch.where(chosen.view(-1, 1, 1, 1), batch.flip(-1), batch)
        case Augmentation.noise:
            noise = torch.from_numpy(draw_noise(tuple(batch.shape), rng))
            return batch + noise.to(batch.device)
        case _:
            assert_never(how)


def _shifted(batch: Tensor, rng: np.random.Generator) -> Tensor:
    for axis in range(2, batch.ndim):
        batch = _shifted_along(batch, axis, rng)
    return batch


def _shifted_along(batch: Tensor, axis: int, rng: np.random.Generator) -> Tensor:
    source = draw_sources(len(batch), batch.shape[axis], rng)
    shape = [len(batch)] + [1] * (batch.ndim - 1)
    shape[axis] = batch.shape[axis]
    index = torch.from_numpy(source).to(batch.device).view(shape).expand(batch.shape)
    return batch.gather(axis, index)
