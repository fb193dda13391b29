"""From raw examples to checked model inputs: once per call, not once per batch."""

import numpy as np

from fedge.arrays import AnyArray, check_finite
from fedge.config import Task
from fedge.data.dataset import DataInfo, Examples
from fedge.errors import DataError
from fedge.runtime.boxes import check_targets


def inputs_of(examples: Examples, info: DataInfo) -> tuple[AnyArray, AnyArray]:
    """Return normalized inputs and targets: numbers and boxes, or classes and tokens.

    Raises:
        DataError: an example has the wrong shape, or holds a value that is not finite,
            a class or token that does not exist, or a box that is none.
    """
    if examples.features.shape[1:] != info.input_shape:
        raise DataError(
            f"{info.name}: examples have shape {examples.features.shape[1:]}, "
            f"need {info.input_shape}"
        )
    inputs = info.normalization.apply(examples.features)
    if inputs.dtype == np.int64:
        _check_below(inputs, info, "tokens")
    elif examples.features.dtype != np.uint8:  # bytes cannot become anything wrong
        _check_numbers(inputs, info, "features")
    return inputs, _targets(examples.targets, info)


def _targets(raw: AnyArray, info: DataInfo) -> AnyArray:
    if info.task is Task.regression:
        numbers = raw.astype(np.float32)
        _check_numbers(numbers, info, "targets")
        return numbers
    if info.task is Task.detection:
        try:
            check_targets(raw, info.num_outputs)
        except ValueError as exc:
            raise DataError(f"{info.name}: {exc}") from exc
        return raw.copy()  # torch warns of read-only arrays
    classes = raw.astype(np.int64)
    _check_below(classes, info, "targets")
    return classes


def _check_below(values: AnyArray, info: DataInfo, what: str) -> None:
    if values.size and not 0 <= values.min() <= values.max() < info.num_outputs:
        raise DataError(f"{info.name}: {what} are not all in [0, {info.num_outputs})")


def _check_numbers(values: AnyArray, info: DataInfo, what: str) -> None:
    try:
        check_finite(values, f"{info.name}: normalized {what}")
    except ValueError as exc:
        raise DataError(f"{exc}; repair or leave out these examples") from exc
