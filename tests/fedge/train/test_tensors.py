"""Examples that are not what they should be are refused before any work."""

import numpy as np
import pytest
import torch

from fedge.arrays import AnyArray
from fedge.config import DataKind, Task
from fedge.data.dataset import DataInfo, Examples
from fedge.errors import DataError
from fedge.runtime.preprocess import Normalization
from fedge.train.tensors import tensors_of

CPU = torch.device("cpu")


def make_info(task: Task = Task.classification) -> DataInfo:
    if task is Task.next_token:
        return DataInfo("t", DataKind.text, task, (2,), 3, (), Normalization())
    return DataInfo(
        "d", DataKind.table, task, (2,), 3, (), Normalization((1.0,), (2.0,))
    )


def test_features_are_normalized_and_targets_typed() -> None:
    raw = np.array([[1, 3]], np.uint8)
    examples = Examples(raw, np.array([2], np.uint8))
    inputs, targets = tensors_of(examples, make_info(), CPU)
    assert inputs.tolist() == [[0.0, 1.0]]
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)


def test_read_only_arrays_are_fine() -> None:
    features, targets = np.zeros((1, 2), np.float32), np.zeros(1, np.float32)
    features.setflags(write=False)
    targets.setflags(write=False)
    _, found = tensors_of(Examples(features, targets), make_info(Task.regression), CPU)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("task", "features", "targets", "reason"),
    [
        (Task.classification, [[0.0]], [0], "shape"),
        (Task.classification, [[0.0, np.nan]], [0], "features"),
        (Task.classification, [[0.0, 0.0]], [3], "targets"),
        (Task.classification, [[0.0, 0.0]], [-1], "targets"),
        (Task.regression, [[0.0, 0.0]], [np.inf], "targets"),
        (Task.next_token, [[0, 3]], [[0, 0]], "tokens"),
        (Task.next_token, [[0, 0]], [[0, 3]], "targets"),
        (Task.detection, [[0.0, 0.0]], np.zeros((1, 2, 4), np.float32), "targets"),
        (Task.detection, [[0.0, 0.0]], np.zeros((1, 2, 5), np.float32), "boxes"),
    ],
)
def test_bad_examples_are_refused(
    task: Task, features: AnyArray, targets: AnyArray, reason: str
) -> None:
    examples = Examples(np.array(features), np.array(targets))
    with pytest.raises(DataError, match=reason):
        tensors_of(examples, make_info(task), CPU)
