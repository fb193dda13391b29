"""How good a model's outputs are: loss and score of every task, in numpy alone.

The coordinator, the release gates and a device judge with this one function, so their
numbers can be compared. The losses that training differentiates are elsewhere and are
tested to be the same.
"""

from dataclasses import dataclass
from typing import assert_never

import numpy as np

from fedge.arrays import AnyArray, Float32, Float64
from fedge.config import Task
from fedge.runtime.average_precision import average_precision
from fedge.runtime.detector import detect, losses

# What is less sure than this is no part of the precision-recall curve.
_LEAST_SCORE = 0.01


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Sums over some examples; add two of them to judge both parts together.

    Attributes:
        loss_sum: sum over the examples of cross entropy (nats; the mean over the
            positions of an example), squared error, or a detector's loss.
        score_sum: sum over the examples of 1 for the right class, the share of right
            tokens, or 1 - squared error; for detection the average precision of these
            examples together, times their number.
        num_examples: how many there were, >= 0.
    """

    loss_sum: float
    score_sum: float
    num_examples: int

    @property
    def loss(self) -> float:
        """Mean loss of an example; ValueError if there is none."""
        return self.loss_sum / self._count()

    @property
    def score(self) -> float:
        """Mean score, at most 1; ValueError if there is no example.

        Accuracy; for standardized numbers 1 - mean squared error: R^2 against always
        predicting the training data's mean; for detection the average precision at an
        overlap of 0.5, or, after an addition, the mean of the parts' ones.
        """
        return self.score_sum / self._count()

    def __add__(self, other: "Evaluation") -> "Evaluation":
        return Evaluation(
            self.loss_sum + other.loss_sum,
            self.score_sum + other.score_sum,
            self.num_examples + other.num_examples,
        )

    def _count(self) -> int:
        if self.num_examples == 0:
            raise ValueError("no examples were evaluated, so there is no mean")
        return self.num_examples


NOTHING = Evaluation(0.0, 0.0, 0)


def score_outputs(outputs: Float32, targets: AnyArray, task: Task) -> Evaluation:
    """Compare a model's outputs with what was to be predicted.

    Args:
        outputs: float32, logits (n, classes) or (n, time, tokens); or one standardized
            number for each example, (n, 1) or (n,); or a detector's (n, 5 + classes,
            rows, columns).
        targets: int64 (n,) classes, int64 (n, time) tokens, float32 (n,) numbers, or
            float32 (n, slots, 5) objects (`fedge.runtime.boxes`).
        task: what is predicted.

    Raises:
        ValueError: the shapes do not fit each other, or a detector's outputs are not
            finite.
    """
    match task:
        case Task.classification | Task.next_token:
            _check_shapes(outputs.shape[:-1] == targets.shape, outputs, targets)
            if targets.size and targets.max() >= outputs.shape[-1]:
                raise ValueError("outputs: fewer classes than there are in the targets")
            errors = _cross_entropies(outputs, targets)
            scores = (outputs.argmax(axis=-1) == targets).astype(np.float64)
        case Task.regression:
            _check_shapes(outputs.size == targets.size, outputs, targets)
            errors = (outputs.reshape(-1).astype(np.float64) - targets.reshape(-1)) ** 2
            scores = 1.0 - errors
        case Task.detection:
            fits = targets.ndim == 3 and outputs.shape[:1] == targets.shape[:1]
            _check_shapes(fits, outputs, targets)
            errors = losses(outputs, targets)
            found = detect(outputs, min_score=_LEAST_SCORE)
            scores = np.full(len(targets), average_precision(found, targets))
        case _:
            assert_never(task)
    return Evaluation(_example_sum(errors), _example_sum(scores), len(targets))


def _check_shapes(fits: bool, outputs: AnyArray, targets: AnyArray) -> None:
    if not fits:
        raise ValueError(f"outputs {outputs.shape} do not fit targets {targets.shape}")


def _cross_entropies(logits: Float32, targets: AnyArray) -> Float64:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
    result: Float64 = np.log(np.exp(shifted).sum(axis=-1)) - chosen
    return result


def _example_sum(values: Float64) -> float:
    """Sum over the examples (first axis) of the mean over the other axes."""
    if values.size == 0:
        return 0.0
    return float(values.reshape(len(values), -1).mean(axis=1).sum())
