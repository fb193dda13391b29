"""A model in ExecuTorch, on the CPU with XNNPACK.

The one module of the runtimes that imports torch: the Python package of ExecuTorch
links libtorch and takes only its tensors. So on a device this costs what torch costs
there. What is light about ExecuTorch is its C++ runner, which reads the same file.

A damaged program is refused in most cases, but some end the process (the runtime checks
itself by aborting). So a program of unknown origin is opened in a child process only.
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
_PTE = b"ET12"
_METHOD = "forward"
# ScalarType of the tensors, as the file numbers them (c10/core/ScalarType.h).
_DTYPE_BY_CODE = {4: np.int64, 6: np.float32}
_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, MemoryError)


class ExecutorchPredictor:
    """A `.pte` program with a method `forward`, and the normalization.

    Args:
        model: the file's bytes, or where it is.
        normalization: from raw values to model inputs.
        threads: >= 1; the Python package has no setting for it.

    Raises:
        ConfigError: `threads` is below 1.
        DataError: the file cannot be read, is not of this format, or its method does
            not have exactly one input and one output, of float32 or int64, for one
            example.
        ModuleNotFoundError: `executorch` is not installed.
    """

    def __init__(
        self, model: bytes | Path, normalization: Normalization, *, threads: int = 1
    ) -> None:
        check_threads(threads)
        data = read_model(model)
        self._program, self._method = _load(data)
        meta = self._method.metadata
        if meta.num_inputs() != 1 or meta.num_outputs() != 1:
            raise DataError(
                f"model file: {meta.num_inputs()} inputs and {meta.num_outputs()} "
                "outputs; need one of each"
            )
        self._shape, self._dtype = _input_of(meta)
        self._normalization = normalization

    def predict(self, raw: AnyArray) -> Float32:
        """Return the model's outputs, float32, shape (n, ...).

        Args:
            raw: raw examples, shape (n, *input_shape), n >= 1.

        Raises:
            ValueError: the shape does not fit the model, or the model failed on it.
        """
        features: AnyArray = self._normalization.apply(raw).astype(self._dtype)
        return one_by_one(features, self._shape, self._run)

    def _run(self, features: AnyArray) -> AnyArray:
        import torch

        try:
            [output] = self._method.execute([torch.from_numpy(features)])
        except _ERRORS as exc:
            raise ValueError(
                f"the model failed on inputs of shape {features.shape}: "
                f"{first_line(exc)}"
            ) from exc
        # A copy: the next call writes into the same memory.
        result: AnyArray = output.numpy().copy()
        return result


def _load(data: bytes) -> tuple[Any, Any]:
    """Return the program, which must outlive its method, and the method."""
    if data[_IDENTIFIER] != _PTE:
        raise DataError("model file: not an ExecuTorch program (.pte)")
    from executorch.runtime import Runtime

    try:
        program = Runtime.get().load_program(data)
        method = program.load_method(_METHOD)
    except _ERRORS as exc:
        raise DataError(f"model file: {first_line(exc)}") from exc
    return program, method


def _input_of(meta: Any) -> tuple[tuple[int, ...], type]:  # noqa: ANN401  # no types
    """Return shape and number type of one example."""
    try:
        info = meta.input_tensor_meta(0)
        shape, dtype = tuple(info.sizes()), _DTYPE_BY_CODE.get(info.dtype())
    except _ERRORS as exc:
        raise DataError(f"model file: {first_line(exc)}") from exc
    if dtype is None or shape[:1] != (1,):
        raise DataError(
            f"model file: an input of shape {shape}; need float32 or int64, for one "
            "example"
        )
    return shape[1:], dtype
