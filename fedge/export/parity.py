"""Does the exported file compute what the module computes?

The module runs in eager mode, the file in the runtime that the devices use. A quantized
file differs from the module on purpose; its limits are wide, and only tell a working
file from a broken one. Not in here: whether its accuracy is good enough.
"""

from dataclasses import dataclass

import numpy as np
import torch

from fedge.arrays import AnyArray, Float32
from fedge.errors import CompressionError, DataError
from fedge.runtime.predictor import OnnxPredictor, Predictor
from fedge.runtime.preprocess import Normalization

# Two orders of summation in float32 differ by about 1e-5; a forgotten layer, far more.
_ROUNDING = 1e-4


@dataclass(frozen=True, slots=True)
class Parity:
    """How far file and module are apart.

    Attributes:
        max_abs_error: largest absolute difference of two outputs.
        top1_agreement: share of outputs whose largest entry (last axis) is the same, or
            as large as the module's largest up to rounding.
    """

    max_abs_error: float
    top1_agreement: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How far file and module may be apart.

    Attributes:
        max_error: largest absolute error, multiplied by the largest output if that is
            above 1, since errors of float32 and of int8 grow with it.
        min_agreement: smallest share of equal top-1 decisions, in [0, 1].
    """

    max_error: float = _ROUNDING
    min_agreement: float = 1.0


def check_parity(
    module: torch.nn.Module,
    model: bytes,
    inputs: AnyArray,
    *,
    tolerance: float = _ROUNDING,
) -> Parity:
    """Run a module and the ONNX file made from it on the same inputs, and compare.

    Guarantee: it returns only if every output is finite and within the tolerance; the
    module is left in the mode it was in.

    Args:
        module: the trained network.
        model: the ONNX file made from it, not quantized.
        inputs: float32 or int64, shape (n, ...), n >= 1.
        tolerance: see `Limits.max_error`.

    Raises:
        CompressionError: shapes differ, an output is not finite, or the error is above
            the tolerance.
    """
    predictor = OnnxPredictor(model, as_they_are(inputs))
    return check_predictor(
        module, predictor, inputs, Limits(tolerance, min_agreement=0.0)
    )


def check_predictor(
    module: torch.nn.Module, predictor: Predictor, inputs: AnyArray, limits: Limits
) -> Parity:
    """Run a module and whatever was made from it on the same inputs, and compare.

    Guarantee: it returns only if every output is finite and both limits are kept; the
    module is left in the mode it was in.

    Args:
        module: the trained network.
        predictor: the exported model, opened with `as_they_are(inputs)`.
        inputs: float32 or int64, shape (n, ...), n >= 1.
        limits: how far both may be apart.

    Raises:
        CompressionError: the exported model fails, its shape is another one, an output
            is not finite, or a limit is missed.
    """
    expected = _run_module(module, inputs)
    try:
        found = predictor.predict(inputs)
    except (DataError, ValueError) as exc:
        raise CompressionError(f"parity: {exc}") from exc
    if expected.shape != found.shape:
        raise CompressionError(
            f"parity: the file returns shape {found.shape}, the module {expected.shape}"
        )
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        raise CompressionError(
            "parity: an output of the module or of the file is not finite; "
            "has the training diverged?"
        )
    parity = _parity(expected, found)
    _check(parity, limits, largest=float(np.abs(expected).max()))
    return parity


def as_they_are(inputs: AnyArray) -> Normalization:
    """Return the normalization that hands inputs of this dtype on unchanged."""
    if np.issubdtype(inputs.dtype, np.integer):
        return Normalization()
    return Normalization((0.0,), (1.0,))


def _parity(expected: Float32, found: Float32) -> Parity:
    tie = _ROUNDING * max(1.0, float(np.abs(expected).max()))
    chosen = found.argmax(axis=-1)[..., None]
    behind = expected.max(axis=-1) - np.take_along_axis(expected, chosen, -1)[..., 0]
    return Parity(
        max_abs_error=float(np.abs(expected - found).max()),
        top1_agreement=float((behind <= tie).mean()),
    )


def _check(parity: Parity, limits: Limits, *, largest: float) -> None:
    most = limits.max_error * max(1.0, largest)
    if not parity.max_abs_error <= most:
        raise CompressionError(
            f"parity: file and module differ by {parity.max_abs_error:.3g}, at most "
            f"{most:.3g}; was the file made from these weights?"
        )
    if not parity.top1_agreement >= limits.min_agreement:
        raise CompressionError(
            f"parity: file and module agree on {parity.top1_agreement:.1%} of the "
            f"decisions, need {limits.min_agreement:.1%}; use another precision"
        )


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
