"""A torch module as one ONNX file: weights inside, any batch size, nothing personal.

The file's input is called "input" and its output "output". BatchNorm is folded into the
layer before it. Not in here: quantization, and the check that the file computes what
the module computes (`parity`).
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from fedge.arrays import AnyArray
from fedge.errors import CompressionError
from fedge.export.strip import strip

__all__ = ["export_onnx", "strip"]

# It reports, once per export, that torchvision's operators are not installed.
_NOISY_LOGGER = "torch.onnx._internal.exporter._registration"


def export_onnx(module: torch.nn.Module, example: AnyArray) -> bytes:
    """Return the module, in evaluation mode, as an ONNX file.

    Guarantee: the same weights give the same bytes; the module is left as it was; the
    file names no path, source line or stack trace.

    Args:
        module: takes one tensor and returns one tensor, batch axis first in both.
        example: a batch of inputs, float32 or int64, shape (n, ...), n >= 1; only its
            shape and dtype matter.

    Raises:
        ValueError: the example is empty or has another dtype.
        CompressionError: the module cannot be expressed in ONNX.
    """
    # A copy: tracing a recurrent layer replaces its weights for a while.
    twin = copy.deepcopy(module).eval()
    with torch.no_grad(), quiet():
        try:
            program = torch.onnx.export(
                twin,
                (_example_batch(example),),
                dynamo=True,
                optimize=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["output"],
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as exc:
            raise CompressionError(
                f"{type(module).__name__} cannot be exported to ONNX: its forward must "
                "take and return one tensor and not branch on values"
            ) from exc
    if program is None:  # the exporter's type allows it, its dynamo form does not
        raise CompressionError(f"{type(module).__name__}: the exporter returned none")
    return strip(program.model_proto.SerializeToString())


def _example_batch(example: AnyArray) -> torch.Tensor:
    """Return two inputs: with a batch of one, one would become a constant."""
    if example.dtype not in (np.float32, np.int64):
        raise ValueError(f"example: dtype {example.dtype}, need float32 or int64")
    if example.ndim < 1 or len(example) == 0:
        raise ValueError(f"example: shape {example.shape}, need (n, ...) with n >= 1")
    return torch.from_numpy(np.repeat(example[:1], 2, axis=0))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what the exporter says about its own insides, and nothing else."""
    logger = logging.getLogger(_NOISY_LOGGER)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch calls functions that torch has deprecated
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # recurrent layers; harmless, as only the copy is touched
            warnings.filterwarnings("ignore", "The tensor attributes? ", UserWarning)
            yield
    finally:
        logger.setLevel(level)
