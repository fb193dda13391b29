from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fedge.config import DataKind, Task
from fedge.data.check import check_data
from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
from fedge.errors import DataError
from fedge.runtime.preprocess import Normalization

MakeData = Callable[..., FederatedData]


def _text(tokens: list[list[int]], targets: list[list[int]]) -> FederatedData:
    info = DataInfo(
        name="text",
        kind=DataKind.text,
        task=Task.next_token,
        input_shape=(2,),
        num_outputs=3,
        output_names=("a", "b", "c"),
        normalization=Normalization(),
    )
    examples = Examples(np.array(tokens, np.uint8), np.array(targets, np.int64))
    return FederatedData(info, examples, examples, NOBODY)


def test_sound_data_of_each_task_passes(make_data: MakeData) -> None:
    check_data(make_data([0, 1, 2], owners=[0, 0, 1]))
    check_data(make_data([5, 6], task=Task.regression))
    check_data(_text([[0, 1]], [[1, 2]]))


def _objects(row: list[float]) -> FederatedData:
    info = DataInfo(
        name="objects",
        kind=DataKind.image,
        task=Task.detection,
        input_shape=(1, 2, 2),
        num_outputs=2,
        output_names=("a", "b"),
        normalization=Normalization((0.0,), (1.0,)),
    )
    examples = Examples(np.zeros((1, 1, 2, 2)), np.array([[row]], np.float32))
    return FederatedData(info, examples, examples, NOBODY)


def test_objects_in_the_image_pass_and_others_are_refused() -> None:
    check_data(_objects([1, 0.0, 0.0, 0.5, 1.0]))
    for row in ([2, 0.0, 0.0, 0.5, 1.0], [1, 0.0, 0.0, 0.5, 1.1]):
        with pytest.raises(DataError, match=r"objects: train: targets"):
            check_data(_objects(row))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(
    bad: float, make_data: MakeData
) -> None:
    data = make_data([0, 1], task=Task.regression)
    features = np.full((2, 2), bad, np.float32)
    targets = np.array([0.0, bad], np.float32)
    for train in (
        Examples(features, data.train.targets),
        Examples(data.train.features, targets),
    ):
        with pytest.raises(DataError, match=r"train.*not finite"):
            check_data(replace(data, train=train))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_class_out_of_range_is_refused(label: int, make_data: MakeData) -> None:
    data = make_data([0, 1, 2])
    targets = np.array([0, 1, label], np.int64)
    train = Examples(data.train.features, targets)
    with pytest.raises(DataError, match=r"targets are not all in \[0, 3\)"):
        check_data(replace(data, train=train))


def test_a_token_out_of_range_is_refused() -> None:
    with pytest.raises(DataError, match=r"tokens are not all in \[0, 3\)"):
        check_data(_text([[0, 3]], [[1, 2]]))
    with pytest.raises(DataError, match="targets are not all"):
        check_data(_text([[0, 1]], [[1, 3]]))


def test_targets_of_another_dtype_or_shape_are_refused(make_data: MakeData) -> None:
    data = make_data([0, 1, 2])
    for targets in (np.zeros(3, np.int32), np.zeros((3, 1), np.int64)):
        with pytest.raises(DataError, match="targets are"):
            check_data(replace(data, train=Examples(data.train.features, targets)))


def test_test_examples_are_checked_too(make_data: MakeData) -> None:
    data = make_data([0, 1, 2])
    other_shape = Examples(np.zeros((1, 3), np.float32), np.zeros(1, np.int64))
    words = Examples(np.array([["a", "b"]]), np.zeros(1, np.int64))
    for test, message in ((other_shape, "declared"), (words, "expected numbers")):
        with pytest.raises(DataError, match=rf"test.*{message}"):
            check_data(replace(data, test=test))


def test_normalization_must_fit_the_examples(make_data: MakeData) -> None:
    data = make_data([0, 1])
    for normalization in (
        Normalization(),
        Normalization(mean=(0.0,) * 3, std=(1.0,) * 3),
    ):
        info = replace(data.info, normalization=normalization)
        with pytest.raises(DataError, match="normalization"):
            check_data(replace(data, info=info))


def test_output_names_must_fit_the_outputs(make_data: MakeData) -> None:
    data = make_data([0, 1])
    with pytest.raises(DataError, match="1 output names, expected 2"):
        check_data(replace(data, info=replace(data.info, output_names=("a",))))
    numbers = make_data([0, 1], task=Task.regression)
    with pytest.raises(DataError, match="regression has 1 output"):
        check_data(replace(numbers, info=replace(numbers.info, num_outputs=2)))


def test_owners_must_fit_their_names(make_data: MakeData) -> None:
    data = make_data([0, 1, 0], owners=[0, 0, 1])
    for changed in (
        replace(data, owner_names=("only one",)),
        replace(data, owner_names=("a", "b", "has nothing")),
        replace(data, owners=NOBODY),
        replace(data, owners=np.array([0.0, 0.0, 1.0])),
    ):
        with pytest.raises(DataError, match="owner"):
            check_data(changed)
