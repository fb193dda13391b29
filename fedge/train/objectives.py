"""What training makes small: one differentiable loss for each task.

Scores and the same losses in numpy: fedge/runtime/score.py. Terms that a strategy adds
(proximal) are added to the gradient by the trainer.
"""

from typing import assert_never

import torch.nn.functional as F
from torch import Tensor

from fedge.config import Task
from fedge.train.detection import detection_losses


def mean_loss(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return the mean loss of a batch, a scalar.

    Args:
        outputs: logits (n, classes) or (n, time, tokens), numbers (n, 1) or (n,), or a
            detector's (n, 5 + classes, rows, columns).
        targets: int64 (n,), int64 (n, time), float32 (n,), or float32 (n, slots, 5).
        task: cross entropy in nats for classes and tokens, squared error for numbers,
            `detection_losses` for objects.
    """
    match task:
        case Task.classification:
            return F.cross_entropy(outputs, targets)
        case Task.next_token:
            return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        case Task.regression:
            return F.mse_loss(outputs.reshape(targets.shape), targets)
        case Task.detection:
            return detection_losses(outputs, targets).mean()
        case _:
            assert_never(task)


def example_losses(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return each example's loss, float32 (n,); arguments as `mean_loss`.

    Guarantee: their mean is `mean_loss`, up to rounding.
    """
    match task:
        case Task.classification:
            return F.cross_entropy(outputs, targets, reduction="none")
        case Task.next_token:
            tokens = F.cross_entropy(
                outputs.flatten(0, 1), targets.flatten(), reduction="none"
            )
            return tokens.view(targets.shape).mean(1)
        case Task.regression:
            return F.mse_loss(outputs.reshape(targets.shape), targets, reduction="none")
        case Task.detection:
            return detection_losses(outputs, targets)
        case _:
            assert_never(task)
