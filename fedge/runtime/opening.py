"""What every predictor does before and after its runtime does the work."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fedge.arrays import AnyArray, Float32
from fedge.errors import ConfigError, DataError
from fedge.runtime.model_check import MAX_MODEL_BYTES


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Say which extra to install if a package is missing in this block.

    Raises:
        ConfigError: a module was not found.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"{extra}: no module {exc.name}; pip install 'fedge[{extra}]'"
        ) from exc


def check_threads(threads: int) -> None:
    """Raise ConfigError unless a prediction has a thread."""
    if threads < 1:
        raise ConfigError(f"threads: {threads} must be at least 1")


def read_model(model: bytes | Path) -> bytes:
    """Return a model's bytes, read whole.

    Raises:
        DataError: there is no such file, or it has more than `MAX_MODEL_BYTES`.
    """
    if isinstance(model, bytes):
        return model
    try:
        with model.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # One byte more than is accepted, if it grows meanwhile.
            data = file.read(MAX_MODEL_BYTES + 1) if size <= MAX_MODEL_BYTES else b""
    except OSError as exc:
        raise DataError(f"model file {model}: {exc.strerror}") from exc
    if size > MAX_MODEL_BYTES:
        raise DataError(
            f"model file {model}: {size} bytes, at most {MAX_MODEL_BYTES} are accepted"
        )
    return data


def first_line(exc: BaseException) -> str:
    """Return what an error of a runtime says, without the stack around it."""
    lines = [line.strip() for line in str(exc).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from ")]
    return said[0][:200] if said else type(exc).__name__


def one_by_one(
    features: AnyArray, shape: tuple[int, ...], run: Callable[[AnyArray], AnyArray]
) -> Float32:
    """Return the outputs of a model that takes one example at a time.

    Args:
        features: model inputs, shape (n, *shape), n >= 1.
        shape: of an example.
        run: from (1, *shape) to (1, ...).

    Raises:
        ValueError: the shape is another one, or there is no example.
    """
    if len(features) == 0 or features.shape[1:] != shape:
        raise ValueError(
            f"the model failed on inputs of shape {features.shape}: need (n, "
            f"{', '.join(map(str, shape))}) with n >= 1"
        )
    rows = [run(features[at : at + 1]) for at in range(len(features))]
    return np.concatenate(rows).astype(np.float32, copy=False)
