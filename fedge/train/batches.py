"""Which examples each optimizer step sees, and what batch normalization needs of them.

Batch normalization cannot learn from a batch of one example: its deviation is 0, and
PyTorch refuses it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_sizes(num_examples: int, batch_size: int, *, avoid_one: bool) -> list[int]:
    """Return the sizes of the batches of one pass over the examples.

    Guarantee: they add up to `num_examples`, all >= 1 and, unless a last single example
    is added to the batch before it, at most `batch_size`.

    Args:
        num_examples: >= 1.
        batch_size: >= 1; the last batch may be shorter.
        avoid_one: add a last single example to the batch before, if there is one.
    """
    full, rest = divmod(num_examples, batch_size)
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if avoid_one and rest == 1 and full:
        sizes[-2:] = [batch_size + 1]
    return sizes


def endless_batches(
    num_examples: int, sizes: Sequence[int], rng: np.random.Generator
) -> Iterator[Tensor]:
    """Yield int64 indices of batches, pass after pass, each in a new random order."""
    while True:
        order = torch.from_numpy(rng.permutation(num_examples))
        yield from torch.split(order, list(sizes))


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the network's batch normalization layers."""
    return [part for part in model.modules() if isinstance(part, _BatchNorm)]


def freeze_batch_norms(model: nn.Module) -> None:
    """Let batch normalization use, and not change, its running statistics."""
    for norm in batch_norms(model):
        norm.eval()
