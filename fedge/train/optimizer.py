"""SGD and Adam on one flat vector, or on the rows of a matrix.

PyTorch's own optimizers spend much of their time on bookkeeping; on one vector the
update is a few lines. Tested to give the same values as `torch.optim`.

Source: torch.optim.SGD; Kingma and Ba (2015), arXiv:1412.6980, with PyTorch's defaults.
Weight decay is the L2 penalty that is added to the gradient, in both.
"""

import math
from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor

from fedge.config import OptimizerName, TrainConfig

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

Update = Callable[[Tensor], None]


def make_update(config: TrainConfig, values: Tensor, learning_rate: float) -> Update:
    """Return a function that takes a gradient and moves `values` by one step.

    Guarantee: where every gradient and the value are 0 the value stays exactly 0.

    Args:
        config: optimizer, momentum, weight decay.
        values: float32, shape (d,) or (K, ...); changed in place by each step.
        learning_rate: of this round, > 0.

    Returns:
        The step. It may overwrite the gradient it is given, float32, of the shape of
        `values` or of its first rows; then only those rows move.
    """
    match config.optimizer:
        case OptimizerName.sgd:
            step = _sgd(values, learning_rate, config.momentum)
        case OptimizerName.adam:
            step = _adam(values, learning_rate)
        case _:
            assert_never(config.optimizer)
    if config.weight_decay == 0.0:
        return step
    return lambda grad: step(grad.add_(values[: len(grad)], alpha=config.weight_decay))


def _sgd(values: Tensor, learning_rate: float, momentum: float) -> Update:
    if momentum == 0.0:
        return lambda grad: _descend(values, grad, learning_rate)
    velocity = torch.zeros_like(values)

    def step(grad: Tensor) -> None:
        moved = velocity[: len(grad)].mul_(momentum).add_(grad)
        _descend(values, moved, learning_rate)

    return step


def _descend(values: Tensor, direction: Tensor, learning_rate: float) -> None:
    values[: len(direction)].sub_(direction, alpha=learning_rate)


def _adam(values: Tensor, learning_rate: float) -> Update:
    mean, square = torch.zeros_like(values), torch.zeros_like(values)
    num_steps = 0

    def step(grad: Tensor) -> None:
        nonlocal num_steps
        num_steps += 1
        rows = slice(len(grad))
        mean[rows].lerp_(grad, 1.0 - _BETA1)
        square[rows].mul_(_BETA2).addcmul_(grad, grad, value=1.0 - _BETA2)
        correction = math.sqrt(1.0 - _BETA2**num_steps)
        size = learning_rate / (1.0 - _BETA1**num_steps)
        deviation = square[rows].sqrt().div_(correction).add_(_EPSILON)
        values[rows].addcdiv_(mean[rows], deviation, value=-size)

    return step
