"""The losses that are trained on are those that are reported."""

import numpy as np
import pytest
import torch

from fedge.arrays import AnyArray
from fedge.config import Task
from fedge.runtime.score import score_outputs
from fedge.train.objectives import mean_loss

RNG = np.random.default_rng(0)
CASES: dict[Task, tuple[tuple[int, ...], AnyArray]] = {
    Task.classification: ((9, 4), RNG.integers(0, 4, 9)),
    Task.next_token: ((9, 5, 4), RNG.integers(0, 4, (9, 5))),
    Task.regression: ((9, 1), RNG.standard_normal(9, np.float32)),
}


@pytest.mark.parametrize("task", Task)
def test_the_loss_is_the_numpy_judgements_mean(task: Task) -> None:
    shape, targets = CASES[task]
    outputs = np.random.default_rng(1).standard_normal(shape, np.float32)
    found = mean_loss(torch.from_numpy(outputs), torch.from_numpy(targets), task)
    expected = score_outputs(outputs, targets, task).loss
    assert found.item() == pytest.approx(expected, rel=1e-6)  # float32 sums


def test_regression_does_not_broadcast_a_column_over_a_row() -> None:
    outputs, targets = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.0])
    assert mean_loss(outputs, targets, Task.regression).item() == 0.0
