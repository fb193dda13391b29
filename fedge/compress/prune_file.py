"""One-shot magnitude pruning of an ONNX file, for models that fedge did not train.

Without training afterwards little can go before accuracy does: measure. What fedge
trains is pruned while it trains (`prune`, `schedule`).

Source: Han, Pool, Tran, Dally (2015), arXiv:1506.02626.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from fedge.arrays import Float32
from fedge.compress.stored import is_large_matrix


def prune_file(model: bytes, *, sparsity: float) -> bytes:
    """Return the model with this share of each large weight array set to zero.

    Guarantee: deterministic; floor(sparsity * size) values of each float32 array of two
    or more axes and at least 256 values are zero, or as many as were, the smallest
    magnitudes first.

    Args:
        model: float32 ONNX file, weights inside.
        sparsity: in [0, 1).

    Raises:
        ValueError: the sparsity is out of range.
    """
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity: {sparsity} not in [0, 1)")
    parsed = onnx.load_model_from_string(model)
    for array in parsed.graph.initializer:
        if is_large_matrix(array):
            values = _without_smallest(numpy_helper.to_array(array), sparsity)
            array.CopyFrom(numpy_helper.from_array(values, array.name))
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


def _without_smallest(values: Float32, sparsity: float) -> Float32:
    order = np.argsort(np.abs(values), axis=None, kind="stable")
    result = values.copy()
    result.reshape(-1)[order[: int(sparsity * values.size)]] = 0.0
    return result
