"""The numpy judgement against hand computed numbers and torch's losses."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedge.config import Task
from fedge.runtime.score import NOTHING, Evaluation, score_outputs


def test_a_two_class_example_by_hand() -> None:
    outputs = np.array([[0.0, math.log(3.0)]], np.float32)  # softmax: 1/4, 3/4
    result = score_outputs(outputs, np.array([1]), Task.classification)
    assert result.loss == pytest.approx(math.log(4 / 3), rel=1e-6)  # float32 log(3)
    assert result.score == 1.0


def test_cross_entropy_agrees_with_torch() -> None:
    rng = np.random.default_rng(0)
    outputs = 20 * rng.standard_normal((50, 7), np.float32)
    targets = rng.integers(0, 7, 50)
    result = score_outputs(outputs, targets, Task.classification)
    expected = F.cross_entropy(
        torch.from_numpy(outputs).double(), torch.from_numpy(targets), reduction="sum"
    )
    assert result.loss_sum == pytest.approx(expected.item(), rel=1e-12)  # both float64


def test_tokens_count_by_position_and_examples_count_once() -> None:
    rng = np.random.default_rng(1)
    outputs = rng.standard_normal((4, 5, 6), np.float32)
    targets = rng.integers(0, 6, (4, 5))
    result = score_outputs(outputs, targets, Task.next_token)
    expected = F.cross_entropy(
        torch.from_numpy(outputs).double().flatten(0, 1),
        torch.from_numpy(targets).flatten(),
    )
    assert result.loss == pytest.approx(expected.item(), rel=1e-12)  # both float64
    assert result.score == pytest.approx((outputs.argmax(-1) == targets).mean())
    assert result.num_examples == 4


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_regression_is_scored_by_one_minus_squared_error(shape: tuple[int]) -> None:
    outputs = np.array([1.0, 2.0, 0.0], np.float32).reshape(shape)
    targets = np.array([1.0, 1.0, 0.0], np.float32)
    assert score_outputs(outputs, targets, Task.regression) == Evaluation(1.0, 2.0, 3)


def test_predicting_the_mean_of_standardized_targets_scores_zero() -> None:
    targets = np.array([-1.0, 1.0], np.float32)
    assert score_outputs(np.zeros(2, np.float32), targets, Task.regression).score == 0.0


def test_evaluations_add_up_to_the_evaluation_of_all() -> None:
    rng = np.random.default_rng(2)
    outputs = rng.standard_normal((10, 3), np.float32)
    targets = rng.integers(0, 3, 10)
    first, rest, whole = (
        score_outputs(outputs[part], targets[part], Task.classification)
        for part in (slice(4), slice(4, None), slice(None))
    )
    total = NOTHING + first + rest
    assert total.loss == pytest.approx(whole.loss)
    assert (total.score, total.num_examples) == (whole.score, 10)


def test_huge_logits_do_not_overflow() -> None:
    outputs = np.array([[3e38, -3e38]], np.float32)
    result = score_outputs(outputs, np.array([0]), Task.classification)
    assert result.loss == 0.0


@pytest.mark.parametrize("task", Task)
def test_shapes_that_do_not_fit_are_refused(task: Task) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        score_outputs(np.zeros((2, 3), np.float32), np.zeros(4, np.int64), task)


def test_no_examples_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no examples"):
        _ = NOTHING.loss
