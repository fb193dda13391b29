"""Run a shipped model: raw sensor values in, outputs out.

The interface, and the default runtime behind it (ONNX Runtime on the CPU); the others
are opened by `fedge.runtime.backends`. The model is always read whole and handed over
as bytes: replacing the file under a running program changes nothing, and a model that
refers to other files or grows while it is loaded is refused before the runtime sees it
(`model_check`). Whether the file deserves trust is decided before, in
`fedge.release`.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from fedge.arrays import AnyArray, Float32
from fedge.errors import DataError
from fedge.runtime.model_check import check_model
from fedge.runtime.opening import check_threads, first_line, read_model
from fedge.runtime.preprocess import Normalization
from fedge.runtime.session import open_session, runtime_errors

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class Predictor(Protocol):
    """Whatever turns raw examples into outputs."""

    def predict(self, raw: AnyArray) -> Float32:
        """Return the outputs for raw examples, float32, shape (n, ...)."""
        ...


class OnnxPredictor:
    """A model in ONNX Runtime, with the normalization it was trained with.

    Args:
        model: an ONNX file's bytes, or where it is.
        normalization: from raw values to model inputs.
        threads: threads of one prediction, >= 1; small models are fastest with 1.
        integer_kernels: False computes quantized operators one by one in float32, as
            the file says, instead of with this processor's own integer arithmetic.

    Raises:
        ConfigError: `threads` is below 1.
        DataError: the file cannot be read, is not ONNX, is refused by `check_model`, or
            does not have exactly one input and one output of a known number type.
        VerificationError: a tensor of the model is in another file.
    """

    def __init__(
        self,
        model: bytes | Path,
        normalization: Normalization,
        *,
        threads: int = 1,
        integer_kernels: bool = True,
    ) -> None:
        check_threads(threads)
        data = read_model(model)
        check_model(data)
        self._session = open_session(
            data, threads=threads, integer_kernels=integer_kernels
        )
        self._normalization = normalization
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].type not in _DTYPES:
            raise DataError(
                f"model file: {len(inputs)} inputs and {len(outputs)} outputs; need "
                f"one of each, and an input of a type in {sorted(_DTYPES)}"
            )
        self._input, self._dtype = inputs[0].name, _DTYPES[inputs[0].type]

    def predict(self, raw: AnyArray) -> Float32:
        """Return the model's outputs, float32, shape (n, ...).

        Args:
            raw: raw examples, shape (n, *input_shape).

        Raises:
            ValueError: the shape does not fit the model, or the model failed on it.
        """
        features = self._normalization.apply(raw).astype(self._dtype, copy=False)
        try:
            outputs = self._session.run(None, {self._input: features})[0]
        except runtime_errors() as exc:
            raise ValueError(
                f"the model failed on inputs of shape {raw.shape}: {first_line(exc)}"
            ) from exc
        result: Float32 = np.asarray(outputs, np.float32)
        return result


def median_latency_ms(
    predictor: Predictor, raw_batch: AnyArray, *, repeats: int
) -> float:
    """Return the median time of one `predict(raw_batch)`, in milliseconds.

    One call before the first measured one fills caches.

    Raises:
        ValueError: `repeats` is below 1.
    """
    (result,) = median_latencies_ms([predictor], raw_batch, repeats=repeats)
    return result


def median_latencies_ms(
    predictors: Sequence[Predictor], raw_batch: AnyArray, *, repeats: int
) -> list[float]:
    """Return each one's median time; they run in turns, so that a busy moment hits all.

    Arguments and errors as `median_latency_ms`.
    """
    if repeats < 1:
        raise ValueError(f"repeats: {repeats} must be at least 1")
    for predictor in predictors:
        predictor.predict(raw_batch)
    seconds: list[list[float]] = [[] for _ in predictors]
    for _ in range(repeats):
        for predictor, times in zip(predictors, seconds, strict=True):
            started = time.perf_counter()
            predictor.predict(raw_batch)
            times.append(time.perf_counter() - started)
    return [1e3 * statistics.median(times) for times in seconds]
