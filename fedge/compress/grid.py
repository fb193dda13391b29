"""Symmetric integer grids for weights: which one loses least, and rounding to it.

A row of weights (one output channel) becomes integer codes times one scale. The scale
that reaches the row's largest weight wastes a coarse grid on it; the one that gives the
least squared error cuts a few weights off and brings all others nearer. Training
towards a grid (`fedge.train.fake_quant`) and shipping it (`int4`) use the same rule.

Source: Choukroun et al. (2019), arXiv:1902.06822, section 3, for scales of least
squared error; here by trying a few cuts.
"""

import math

import numpy as np

from fedge.arrays import Float32, Int8

# Codes lie in [-limit, limit]: 0 is on the grid, and nothing needs a zero point.
INT4_LIMIT = 7
INT8_LIMIT = 64  # seven bits, see `quantize`
_MIN_VALUES = 256  # below, tables and operators take as much as they save
_TINY = np.finfo(np.float32).tiny
_CUTS = np.linspace(1.0, 0.4, 13, dtype=np.float32)  # of the largest weight


def is_large(shape: tuple[int, ...]) -> bool:
    """Say whether an array of this shape is worth storing in four bits.

    A recurrent layer's bias has two axes in ONNX, of which one has the length 1.
    """
    wide = [side for side in shape if side > 1]
    return len(wide) > 1 and math.prod(shape) >= _MIN_VALUES


def widest_scales(rows: Float32, limit: int) -> Float32:
    """Return the scale of each row that reaches its largest weight; see `best_scales`.

    A row whose scale would be inexact (below 1e-38) gets 1: it becomes all zeros.
    """
    scales = np.abs(rows).max(axis=1, keepdims=True) / np.float32(limit)
    return np.where(scales >= _TINY, scales, np.float32(1.0)).astype(np.float32)


def best_scales(rows: Float32, limit: int) -> Float32:
    """Return the scale of each row that gives the least squared error.

    Guarantee: deterministic; > 0; of equal errors the larger scale.

    Args:
        rows: finite, float32, shape (r, n), n >= 1.
        limit: the largest code, >= 1.

    Returns:
        float32, shape (r, 1).
    """
    scales = widest_scales(rows, limit)
    best, least = scales, np.full_like(scales, np.inf)
    for cut in _CUTS:
        tried = np.maximum(scales * cut, _TINY)
        errors = np.square(to_codes(rows, tried, limit) * tried - rows)
        error = errors.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        best = np.where(error < least, tried, best)
        least = np.minimum(error, least)
    return best


def to_codes(rows: Float32, scales: Float32, limit: int) -> Int8:
    """Return the codes of the grid's points nearest to the values.

    Guarantee: zeros get the code 0; codes are in [-limit, limit].

    Args:
        rows: finite, float32.
        scales: > 0, float32, broadcast over the rows.
        limit: the largest code, 1 to 127.
    """
    codes: Int8 = np.clip(np.rint(rows / scales), -limit, limit).astype(np.int8)
    return codes
