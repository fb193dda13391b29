"""Which examples each optimizer step sees, and what batch normalization needs of them.

Batch normalization cannot learn from a batch of one example: its deviation is 0, and
PyTorch refuses it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedge.runtime.local import batch_sizes, endless_indices

__all__ = ["batch_norms", "batch_sizes", "endless_batches", "freeze_batch_norms"]


def endless_batches(
    num_examples: int, sizes: Sequence[int], rng: np.random.Generator
) -> Iterator[Tensor]:
    """Return int64 indices of batches, pass after pass, each in a new random order."""
    return map(torch.from_numpy, endless_indices(num_examples, sizes, rng))


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the network's batch normalization layers."""
    return [part for part in model.modules() if isinstance(part, _BatchNorm)]


def freeze_batch_norms(model: nn.Module) -> None:
    """Let batch normalization use, and not change, its running statistics."""
    for norm in batch_norms(model):
        norm.eval()
