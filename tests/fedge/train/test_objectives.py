"""The losses that are trained on are those that are reported."""

import numpy as np
import pytest
import torch

from fedge.arrays import AnyArray
from fedge.config import Task
from fedge.data.shapes import draw_shapes
from fedge.runtime.score import score_outputs
from fedge.train.objectives import example_losses, mean_loss

RNG = np.random.default_rng(0)
CASES: dict[Task, tuple[tuple[int, ...], AnyArray]] = {
    Task.classification: ((9, 4), RNG.integers(0, 4, 9)),
    Task.next_token: ((9, 5, 4), RNG.integers(0, 4, (9, 5))),
    Task.regression: ((9, 1), RNG.standard_normal(9, np.float32)),
    Task.detection: ((9, 8, 5, 4), draw_shapes(9, seed=0).targets),
}


@pytest.mark.parametrize("task", Task)
def test_the_loss_is_the_numpy_judgements_mean(task: Task) -> None:
    shape, targets = CASES[task]
    outputs = np.random.default_rng(1).standard_normal(shape, np.float32)
    found = mean_loss(torch.from_numpy(outputs), torch.from_numpy(targets), task)
    expected = score_outputs(outputs, targets, task).loss
    assert found.item() == pytest.approx(expected, rel=1e-6)  # float32 sums


@pytest.mark.parametrize("task", Task)
def test_the_mean_of_the_examples_losses_is_the_loss(task: Task) -> None:
    shape, targets = CASES[task]
    outputs = torch.from_numpy(RNG.standard_normal(shape, np.float32))
    each = example_losses(outputs, torch.from_numpy(targets), task)
    whole = mean_loss(outputs, torch.from_numpy(targets), task)
    assert each.shape == (9,)
    torch.testing.assert_close(each.mean(), whole)


def test_a_cell_is_judged_by_the_object_whose_centre_it_holds() -> None:
    # Class 1 of 2, the whole image, in the only cell: its centre is at sigmoid(0), and
    # its size is 1 where sigmoid(0) says 1/2. By hand: log 2 for objectness, log 2 for
    # the class, 1/2 for each side.
    targets = torch.tensor([[[1.0, 0.0, 0.0, 1.0, 1.0], [-1.0, 0, 0, 0, 0]]])
    found = mean_loss(torch.zeros(1, 7, 1, 1), targets, Task.detection)
    assert found.item() == pytest.approx(2 * np.log(2) + 1.0)


def test_an_image_without_objects_teaches_that_all_cells_are_empty() -> None:
    targets = torch.tensor([[[-1.0, 0.0, 0.0, 0.0, 0.0]]])
    outputs = torch.zeros(1, 7, 2, 2, requires_grad=True)
    loss = mean_loss(outputs, targets, Task.detection)
    (slope,) = torch.autograd.grad(loss, outputs)
    assert loss.item() == pytest.approx(4 * np.log(2))
    assert (slope[0, 0] == 0.5).all()
    assert not slope[0, 1:].any()


def test_regression_does_not_broadcast_a_column_over_a_row() -> None:
    outputs, targets = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 1.0])
    assert mean_loss(outputs, targets, Task.regression).item() == 0.0
