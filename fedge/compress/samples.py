"""Examples that a model is calibrated with and judged on, from a file of arrays."""

import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedge.arrays import AnyArray
from fedge.config import Task
from fedge.errors import DataError
from fedge.runtime.boxes import check_targets

MAX_MB = 4096
# What reading a damaged archive, or the header of an array in it, can raise.
_UNREADABLE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_MAX_CLASSES = 1 << 16
_KINDS = "fiub"  # floats, integers, booleans


@dataclass(frozen=True, slots=True)
class Samples:
    """Model inputs and what they are.

    Attributes:
        inputs: as the model takes them, float32 or int64, shape (n, ...), n >= 2.
        targets: int64 classes or tokens, float32 numbers, or float32 objects
            (n, slots, 5), as `fedge.runtime.boxes.check_targets` has them.
    """

    inputs: AnyArray
    targets: AnyArray


def read_samples(path: Path, task: Task) -> Samples:
    """Return the arrays `inputs` and `targets` of an .npz file.

    Guarantee: nothing in the file is executed; at most 4 GiB are read.

    Raises:
        DataError: the file cannot be read, is larger, has other arrays, or they do not
            fit each other or the task.
    """
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except _UNREADABLE as exc:
        raise DataError(f"{path}: not a readable .npz file ({exc})") from exc
    if set(found) != {"inputs", "targets"}:
        raise DataError(
            f"{path}: has the arrays {', '.join(sorted(found)) or 'none'}; need "
            f"'inputs' and 'targets' (numpy.savez(path, inputs=..., targets=...))"
        )
    inputs, targets = found["inputs"], found["targets"]
    for name, values in found.items():
        if values.dtype.kind not in _KINDS or not np.isfinite(values).all():
            raise DataError(f"{path}: {name} must be finite numbers")
    if inputs.ndim < 2 or len(inputs) != len(targets) or len(inputs) < 2:
        raise DataError(
            f"{path}: inputs {inputs.shape} and targets {targets.shape}; need at least "
            f"two examples, and a target for each"
        )
    whole = task in (Task.classification, Task.next_token)
    if whole and (targets.dtype.kind == "f" or (targets < 0).any()):
        raise DataError(
            f"{path}: targets of a {task} task must be whole numbers, not negative"
        )
    if task is Task.detection:
        _check_boxes(path, targets.astype(np.float32))
    with np.errstate(over="ignore"):
        samples = Samples(
            inputs.astype(np.float32 if inputs.dtype.kind == "f" else np.int64),
            targets.astype(np.int64 if whole else np.float32),
        )
    if not np.isfinite(samples.inputs).all() or (whole and samples.targets.min() < 0):
        raise DataError(f"{path}: numbers are too large for float32 or int64")
    return samples


def _check_boxes(path: Path, targets: AnyArray) -> None:
    try:
        check_targets(targets, _MAX_CLASSES)
    except ValueError as exc:
        raise DataError(f"{path}: {exc}") from exc


def _check_size(path: Path) -> None:
    """Raise DataError if the arrays would be larger than allowed, before reading."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_MB << 20:
        raise DataError(f"{path}: {size >> 20} MB unpacked, at most {MAX_MB}")
