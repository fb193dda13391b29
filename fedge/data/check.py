"""Whether loaded data keeps the promises of `FederatedData` that training relies on.

A loader may be somebody else's; a wrong dtype or a class out of range would otherwise
surface rounds later, on a device, as a crash or as a NaN.
"""

import numpy as np

from fedge.arrays import AnyArray
from fedge.config import DataKind, Task
from fedge.data.dataset import DataInfo, Examples, FederatedData
from fedge.errors import DataError
from fedge.runtime.boxes import check_targets


def check_data(data: FederatedData) -> None:
    """Check values, classes, owners and normalization.

    Guarantee: if this returns, all numbers are finite; all classes and tokens are in
    [0, num_outputs); targets have the task's dtype and shape; boxes are in the image;
    every owner name has at least one training example; the normalization fits the
    examples.

    Raises:
        DataError: one of these does not hold; the message names the part and the
            range, never a value of an example.
    """
    _check_names(data.info)
    for part, examples in (("train", data.train), ("test", data.test)):
        name = f"{data.info.name}: {part}"
        _check_features(examples, data.info, name)
        _check_targets(examples, data.info, name)
    _check_owners(data)


def _check_names(info: DataInfo) -> None:
    expected = 0 if info.task is Task.regression else info.num_outputs
    if len(info.output_names) != expected:
        raise DataError(
            f"{info.name}: {len(info.output_names)} output names, expected {expected}"
        )
    if info.task is Task.regression and info.num_outputs != 1:
        raise DataError(
            f"{info.name}: regression has 1 output, declared {info.num_outputs}"
        )
    if (info.kind is DataKind.text) == bool(info.normalization.mean):
        raise DataError(
            f"{info.name}: normalization must be empty for text and only for text"
        )


def _check_features(examples: Examples, info: DataInfo, name: str) -> None:
    features = examples.features
    if features.shape[1:] != info.input_shape:
        raise DataError(
            f"{name}: examples have shape {features.shape[1:]}, declared "
            f"{info.input_shape}"
        )
    if info.kind is DataKind.text:
        _check_indices(features, info.num_outputs, f"{name}: tokens")
    elif features.dtype.kind not in "iuf":
        raise DataError(f"{name}: features are {features.dtype}, expected numbers")
    elif features.dtype.kind == "f" and not np.isfinite(features).all():
        raise DataError(f"{name}: some features are not finite numbers")
    try:
        info.normalization.apply(features[:1])
    except ValueError as exc:
        raise DataError(f"{name}: normalization: {exc}") from exc


def _check_targets(examples: Examples, info: DataInfo, name: str) -> None:
    targets, count = examples.targets, len(examples)
    if info.task is Task.detection:
        try:
            check_targets(targets, info.num_outputs)
        except ValueError as exc:
            raise DataError(f"{name}: {exc}") from exc
        return
    is_sequence = info.task is Task.next_token
    shape = (count, *info.input_shape) if is_sequence else (count,)
    dtype = np.float32 if info.task is Task.regression else np.int64
    if targets.shape != shape or targets.dtype != dtype:
        raise DataError(
            f"{name}: targets are {targets.dtype} {targets.shape}, expected "
            f"{np.dtype(dtype)} {shape}"
        )
    if info.task is not Task.regression:
        _check_indices(targets, info.num_outputs, f"{name}: targets")
    elif not np.isfinite(targets).all():
        raise DataError(f"{name}: some targets are not finite numbers")


def _check_owners(data: FederatedData) -> None:
    if len(data.owners) == 0:
        if data.owner_names:
            raise DataError(f"{data.info.name}: owner names, but no owners")
        return
    name = f"{data.info.name}: owners"
    _check_indices(data.owners, len(data.owner_names), name)
    num_present = len(np.unique(data.owners))
    if num_present != len(data.owner_names):
        raise DataError(
            f"{name}: {len(data.owner_names)} names, {num_present} have examples"
        )


def _check_indices(values: AnyArray, count: int, name: str) -> None:
    if values.dtype.kind not in "iu":
        raise DataError(f"{name} are {values.dtype}, expected integers")
    if values.min() < 0 or values.max() >= count:
        raise DataError(f"{name} are not all in [0, {count})")
