"""What local training is made of, whoever computes it: PyTorch or ONNX Runtime.

Which examples each step sees, where training begins and what comes out. Both trainers
draw the same random numbers in the same order from here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedge.arrays import Bool, Float32, Int64, ModelSpec, check_finite


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What training on one device gives.

    Attributes:
        delta: local - global over the whole model, buffers too, float32, shape (d,).
        num_examples: examples on the device: the update's weight.
        loss: mean over the examples of all steps, each before its step and without the
            proximal term.
        num_steps: optimizer steps made.
    """

    delta: Float32
    num_examples: int
    loss: float
    num_steps: int


def start_of(params: Float32, mask: Bool | None, spec: ModelSpec) -> Float32:
    """Return the values that local training begins with: pruned ones are 0.

    Raises:
        ValueError: there are more or fewer values than the model has, or the mask has
            another shape or type, or prunes a buffer.
    """
    if params.shape != (spec.size,):
        raise ValueError(f"params: need shape ({spec.size},), got {params.shape}")
    if mask is None:
        return params
    if mask.shape != (spec.size,) or mask.dtype != np.bool_:
        raise ValueError(
            f"mask: {mask.dtype} of shape {mask.shape}, need bool ({spec.size},)"
        )
    if not mask[spec.num_trainable :].all():
        raise ValueError("mask: buffers and frozen parameters cannot be pruned")
    return np.where(mask, params, np.float32(0))


def check_trained(delta: Float32, loss: float, learning_rate: float) -> None:
    """Raise ValueError, with a remedy, if what training gave is not finite."""
    name = (
        f"model after local training (lower train.learning_rate, {learning_rate:g} "
        f"now, or set train.clip_norm)"
    )
    check_finite(delta, name)
    check_finite(np.array([loss]), name)


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


def endless_indices(
    num_examples: int, sizes: Sequence[int], rng: np.random.Generator
) -> Iterator[Int64]:
    """Yield int64 indices of batches, pass after pass, each in a new random order."""
    ends = np.cumsum(sizes)[:-1]
    while True:
        yield from np.split(rng.permutation(num_examples), ends)
