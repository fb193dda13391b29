"""Symmetric integer grids for weights: which one loses least, and rounding to it.

A row of weights (one output channel) becomes integer codes times one scale. The scale
that reaches the row's largest weight wastes a coarse grid on it; the one that gives the
least squared error cuts a few weights off and brings all others nearer. Training
towards a grid (`fedge.train.fake_quant`) and shipping it (`int4`) use the same rule.

Source: Choukroun et al. (2019), arXiv:1902.06822, section 3, for scales of least
squared error; here by trying a few cuts.
"""

import numpy as np

from fedge.arrays import Float32, Int8

# Codes lie in [-limit, limit]: 0 is on the grid, and nothing needs a zero point.
INT4_LIMIT = 7
_CUTS = np.linspace(1.0, 0.4, 13, dtype=np.float32)  # of the largest weight


def best_scales(rows: Float32, limit: int) -> Float32:
    """Return the scale of each row that gives the least squared error.

    Guarantee: deterministic; > 0; of equal errors the larger scale.

    Args:
        rows: finite, float32, shape (r, n), n >= 1.
        limit: the largest code, >= 1.

    Returns:
        float32, shape (r, 1).
    """
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest / limit, 1.0).astype(np.float32)
    # Below this a scale is inexact: such a row becomes all zeros.
    scales = np.where(scales >= np.finfo(np.float32).tiny, scales, np.float32(1.0))
    best, least = scales, np.full_like(scales, np.inf)
    for cut in _CUTS:
        tried = np.maximum(scales * cut, np.finfo(np.float32).tiny)
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
    return np.clip(np.rint(rows / scales), -limit, limit).astype(np.int8)
