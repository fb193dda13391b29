"""Does the exported file compute what the module computes?

The module runs in eager mode, the file in the runtime that the devices use. Not in
here: the accuracy of a quantized model, which differs from the module on purpose.
"""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch

from fedge.arrays import AnyArray, Float32
from fedge.errors import CompressionError


@dataclass(frozen=True, slots=True)
class Parity:
    """How far file and module are apart.

    Attributes:
        max_abs_error: largest absolute difference of two outputs.
        top1_agreement: share of outputs whose largest entry (last axis) is the same.
    """

    max_abs_error: float
    top1_agreement: float


def check_parity(
    module: torch.nn.Module,
    model: bytes,
    inputs: AnyArray,
    *,
    tolerance: float = 1e-4,
) -> Parity:
    """Run both on the same inputs and compare.

    Guarantee: it returns only if every output is finite and within the tolerance; the
    module is left in the mode it was in.

    Args:
        module: the trained network.
        model: the ONNX file made from it, not quantized.
        inputs: float32 or int64, shape (n, ...), n >= 1.
        tolerance: allowed absolute error, multiplied by the largest output if that is
            above 1, since the rounding errors of float32 grow with it. Two orders of
            summation differ by about 1e-5; a forgotten layer by far more.

    Raises:
        CompressionError: shapes differ, an output is not finite, or the error is above
            the tolerance.
    """
    expected, found = _run_module(module, inputs), _run_onnx(model, inputs)
    if expected.shape != found.shape:
        raise CompressionError(
            f"parity: the file returns shape {found.shape}, the module {expected.shape}"
        )
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        raise CompressionError(
            "parity: an output of the module or of the file is not finite; "
            "has the training diverged?"
        )
    error = float(np.abs(expected - found).max())
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    if not error <= limit:
        raise CompressionError(
            f"parity: file and module differ by {error:.3g}, at most {limit:.3g}; "
            "was the file made from these weights?"
        )
    same = expected.argmax(axis=-1) == found.argmax(axis=-1)
    return Parity(max_abs_error=error, top1_agreement=float(same.mean()))


def _run_module(module: torch.nn.Module, inputs: AnyArray) -> Float32:
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            outputs: torch.Tensor = module(torch.from_numpy(inputs))
    finally:
        module.train(was_training)
    result: Float32 = outputs.numpy()
    return result


def _run_onnx(model: bytes, inputs: AnyArray) -> Float32:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    result: Float32 = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return result
