"""Small data sets made for tests, and the folder of the real ones."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedge.config import DataKind, Task
from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
from fedge.runtime.preprocess import Normalization

MakeData = Callable[..., FederatedData]


@pytest.fixture
def data_root() -> Path:
    root = os.environ.get("FEDGE_DATA_ROOT", "")
    if not root:
        pytest.skip("FEDGE_DATA_ROOT is not set")
    return Path(root)


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """Return a maker of two-column tables with these labels and owners."""

    def make(
        labels: list[int],
        owners: list[int] | None = None,
        task: Task = Task.classification,
    ) -> FederatedData:
        count = len(labels)
        is_regression = task is Task.regression
        num_classes = 1 if is_regression else max(labels) + 1
        info = DataInfo(
            name="made",
            kind=DataKind.table,
            task=task,
            input_shape=(2,),
            num_outputs=num_classes,
            output_names=() if is_regression else tuple("abcdefghij"[:num_classes]),
            normalization=Normalization(mean=(0.0,), std=(1.0,)),
        )
        features = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
        targets = np.array(labels, np.float32 if is_regression else np.int64)
        examples = Examples(features, targets)
        test = examples.take(np.arange(1))
        if owners is None:
            return FederatedData(info, examples, test, NOBODY)
        names = tuple(f"owner {index}" for index in range(max(owners) + 1))
        return FederatedData(info, examples, test, np.array(owners, np.int64), names)

    return make
