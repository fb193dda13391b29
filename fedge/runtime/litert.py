"""A model in LiteRT (formerly TensorFlow Lite), on the CPU with XNNPACK.

Models take one example at a time: that is what `fedge.export.litert` writes, and what a
microcontroller or an accelerator behind a delegate wants, too.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fedge.arrays import AnyArray, Float32
from fedge.errors import DataError
from fedge.runtime.opening import check_threads, first_line, one_by_one, read_model
from fedge.runtime.preprocess import Normalization

# After the offset of the root table: the identifier of the schema.
_IDENTIFIER = slice(4, 8)
_TFLITE = b"TFL3"
_FLOATING = (np.float32,)
_DTYPES = (*_FLOATING, np.int8, np.int32, np.int64)
_ERRORS = (ValueError, RuntimeError, TypeError)


class LitertPredictor:
    """A `.tflite` model, with the normalization it was trained with.

    Args:
        model: the file's bytes, or where it is.
        normalization: from raw values to model inputs.
        threads: threads of one prediction, >= 1.

    Raises:
        ConfigError: `threads` is below 1.
        DataError: the file cannot be read, is not of this format, or does not have
            exactly one input and one output of a known number type, for one example.
        ModuleNotFoundError: `ai-edge-litert` is not installed.
    """

    def __init__(
        self, model: bytes | Path, normalization: Normalization, *, threads: int = 1
    ) -> None:
        check_threads(threads)
        self._interpreter = _interpreter(read_model(model), threads)
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise DataError(
                f"model file: {len(inputs)} inputs and {len(outputs)} outputs; need "
                "one of each"
            )
        self._input, self._output = inputs[0], outputs[0]
        _check_tensor(self._input)
        _check_tensor(self._output)
        if self._input["shape"].size < 1 or self._input["shape"][0] != 1:
            raise DataError("model file: need an input for one example")
        self._shape = tuple(int(side) for side in self._input["shape"][1:])
        self._normalization = normalization

    def predict(self, raw: AnyArray) -> Float32:
        """Return the model's outputs, float32, shape (n, ...).

        Args:
            raw: raw examples, shape (n, *input_shape), n >= 1.

        Raises:
            ValueError: the shape does not fit the model, or the model failed on it.
        """
        features = self._normalization.apply(raw)
        return one_by_one(features, self._shape, self._run)

    def _run(self, features: AnyArray) -> AnyArray:
        try:
            self._interpreter.set_tensor(
                self._input["index"], _encoded(features, self._input)
            )
            self._interpreter.invoke()
            output: AnyArray = self._interpreter.get_tensor(self._output["index"])
        except _ERRORS as exc:
            raise ValueError(
                f"the model failed on inputs of shape {features.shape}: "
                f"{first_line(exc)}"
            ) from exc
        return _decoded(output, self._output)


def _interpreter(data: bytes, threads: int) -> Any:  # noqa: ANN401  # has no types
    if data[_IDENTIFIER] != _TFLITE:
        raise DataError("model file: not a LiteRT model (.tflite)")
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except _ERRORS as exc:
        raise DataError(f"model file: {first_line(exc)}") from exc
    return interpreter


def _check_tensor(details: dict[str, Any]) -> None:
    if details["dtype"] not in _DTYPES:
        names = ", ".join(np.dtype(kind).name for kind in _DTYPES)
        raise DataError(
            f"model file: an input or output of {np.dtype(details['dtype']).name}; "
            f"need one of {names}"
        )
    scale = details["quantization"][0]
    if details["dtype"] is np.int8 and not (np.isfinite(scale) and scale > 0.0):
        raise DataError(f"model file: int8 with the scale {scale}, need one above 0")


def _encoded(features: AnyArray, details: dict[str, Any]) -> AnyArray:
    """Return the inputs in the number format of the model's input."""
    if details["dtype"] is not np.int8:
        return features.astype(details["dtype"])
    scale, zero_point = details["quantization"]
    codes: AnyArray = np.rint(features / np.float32(scale)) + zero_point
    return codes.clip(-128, 127).astype(np.int8)


def _decoded(output: AnyArray, details: dict[str, Any]) -> AnyArray:
    if details["dtype"] is not np.int8:
        return output
    scale, zero_point = details["quantization"]
    values: AnyArray = (output.astype(np.float32) - zero_point) * np.float32(scale)
    return values
