"""What training makes small: one differentiable loss for each task.

Scores and the same losses in numpy: fedge/runtime/score.py. Terms that a strategy adds
(proximal) are added to the gradient by the trainer.
"""

from typing import assert_never

import torch.nn.functional as F
from torch import Tensor

from fedge.config import Task


def mean_loss(outputs: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return the mean loss of a batch, a scalar.

    Args:
        outputs: logits (n, classes) or (n, time, tokens), or numbers (n, 1) or (n,).
        targets: int64 (n,), int64 (n, time), or float32 (n,).
        task: cross entropy in nats for classes and tokens, squared error for numbers.
    """
    match task:
        case Task.classification:
            return F.cross_entropy(outputs, targets)
        case Task.next_token:
            return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        case Task.regression:
            return F.mse_loss(outputs.reshape(targets.shape), targets)
        case _:
            assert_never(task)
