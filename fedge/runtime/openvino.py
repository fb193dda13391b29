"""A model in OpenVINO, on the CPU. Experimental: see the traps in docs/backends.md.

OpenVINO reads the ONNX file itself, so there is no second format to sign. Two things
are not left to its defaults: it computes in float32 (it would take bfloat16 where the
processor has it, which costs three digits and does not compile some int8 models), and
it does not report that it was imported.
"""

import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fedge.arrays import AnyArray, Float32
from fedge.errors import DataError
from fedge.runtime.model_check import check_model
from fedge.runtime.opening import check_threads, first_line, read_model
from fedge.runtime.preprocess import Normalization

_DTYPES = {"f32": np.float32, "i64": np.int64, "i32": np.int32}
_ERRORS = (RuntimeError, ValueError, TypeError)


class OpenvinoPredictor:
    """An ONNX model in OpenVINO, with the normalization it was trained with.

    Args:
        model: the file's bytes, or where it is.
        normalization: from raw values to model inputs.
        threads: threads of one prediction, >= 1.

    Raises:
        ConfigError: `threads` is below 1.
        DataError: the file cannot be read, is not ONNX, holds what OpenVINO cannot
            run, or does not have exactly one input and one output of a known number
            type.
        VerificationError: a tensor of the model is in another file.
        ModuleNotFoundError: `openvino` is not installed.
    """

    def __init__(
        self, model: bytes | Path, normalization: Normalization, *, threads: int = 1
    ) -> None:
        check_threads(threads)
        data = read_model(model)
        check_model(data)
        self._compiled = _compiled(data, threads)
        inputs, outputs = self._compiled.inputs, self._compiled.outputs
        kinds = [port.get_element_type().get_type_name() for port in inputs]
        if len(inputs) != 1 or len(outputs) != 1 or kinds[0] not in _DTYPES:
            raise DataError(
                f"model file: {len(inputs)} inputs and {len(outputs)} outputs; need "
                f"one of each, and an input of a type in {sorted(_DTYPES)}"
            )
        self._dtype = _DTYPES[kinds[0]]
        self._normalization = normalization

    def predict(self, raw: AnyArray) -> Float32:
        """Return the model's outputs, float32, shape (n, ...).

        Args:
            raw: raw examples, shape (n, *input_shape).

        Raises:
            ValueError: the shape does not fit the model, or the model failed on it.
        """
        features = self._normalization.apply(raw).astype(self._dtype)
        try:
            outputs = self._compiled(features)[0]
        except _ERRORS as exc:
            raise ValueError(
                f"the model failed on inputs of shape {raw.shape}: {first_line(exc)}"
            ) from exc
        return np.array(outputs, np.float32)  # a copy: the buffer is used again


def _compiled(model: bytes, threads: int) -> Any:  # noqa: ANN401  # has no types
    openvino = _silent_openvino()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        core = openvino.Core()
        return core.compile_model(core.read_model(io.BytesIO(model)), "CPU", options)
    except _ERRORS as exc:
        raise DataError(f"model file: {first_line(exc)}") from exc


def _silent_openvino() -> ModuleType:
    """Import OpenVINO so that it does not report to its makers that it was.

    Its converter, which comes with the import and is not used here, writes an identity
    into the home folder and sends an event. Without the module that sends (as where it
    is not installed) it goes on with a stub of its own.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # "none there"
    import openvino

    module: ModuleType = openvino
    return module
