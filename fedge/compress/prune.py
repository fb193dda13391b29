"""Which weights are zero: magnitude masks that only grow, and their form on the wire.

Every prunable array loses the same share of its own smallest weights. One threshold for
the whole network would compare magnitudes that are not comparable (a layer before a
normalization may be scaled freely) and empties small layers: a mobile network pruned to
80 % that way falls to chance. Not in here: when to prune (`schedule`), and training
under a mask.

Source: Han, Pool, Tran, Dally (2015), arXiv:1506.02626.
"""

import numpy as np

from fedge.arrays import Bool, Float32, ModelSpec, UInt8, check_finite


def magnitude_mask(
    params: Float32,
    spec: ModelSpec,
    *,
    sparsity: float,
    previous: Bool | None = None,
) -> Bool:
    """Return which coordinates are kept.

    Guarantee: in each prunable array floor(sparsity * size) coordinates are pruned, or
    as many as `previous` has pruned if those are more; no array becomes empty; what
    `previous` has pruned stays pruned; what is not prunable is kept; of equal
    magnitudes the one that comes first goes first.

    Args:
        params: the model, float32, shape (d,).
        spec: which coordinates are prunable.
        sparsity: share to prune, in [0, 1).
        previous: the mask so far, bool, shape (d,), True = kept.

    Returns:
        A new bool array, shape (d,), True = kept.

    Raises:
        ValueError: a wrong shape, a sparsity out of range, or params that are not
            finite.
    """
    _check(params, spec, sparsity, previous)
    mask = np.ones(spec.size, np.bool_) if previous is None else previous.copy()
    for array, place in zip(spec.arrays, spec.slices().values(), strict=True):
        if array.prunable:
            mask[place] = _grow(params[place], mask[place], int(sparsity * array.size))
        else:
            mask[place] = True
    return mask


def _grow(values: Float32, kept: Bool, num_pruned: int) -> Bool:
    """Return `kept` with the smallest values gone until `num_pruned` are."""
    rank = np.where(kept, np.abs(values), np.float32(-1.0))  # pruned ones come first
    order = np.argsort(rank, kind="stable")
    result = kept.copy()
    result[order[:num_pruned]] = False
    return result


def _check(
    params: Float32, spec: ModelSpec, sparsity: float, previous: Bool | None
) -> None:
    if params.shape != (spec.size,):
        raise ValueError(f"params: shape {params.shape}, need ({spec.size},)")
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"sparsity: {sparsity} not in [0, 1)")
    if previous is not None and (
        previous.shape != (spec.size,) or previous.dtype != np.bool_
    ):
        raise ValueError(
            f"previous: {previous.dtype} of shape {previous.shape}, "
            f"need bool of shape ({spec.size},)"
        )
    check_finite(params, "params")


def pack_mask(mask: Bool) -> UInt8:
    """Return the mask with eight coordinates per byte, the first in the highest bit.

    Args:
        mask: bool, shape (d,).

    Returns:
        uint8, shape (ceil(d / 8),); bits after the last coordinate are 0.

    Raises:
        ValueError: not a vector of bool.
    """
    if mask.dtype != np.bool_ or mask.ndim != 1:
        raise ValueError(
            f"mask: {mask.dtype} of shape {mask.shape}, need bool of shape (d,)"
        )
    return np.packbits(mask)


def unpack_mask(packed: UInt8, size: int) -> Bool:
    """Return the mask that `pack_mask` packed.

    Guarantee: `unpack_mask(pack_mask(m), m.size)` equals m, and no other bytes give m.

    Args:
        packed: uint8, shape (ceil(size / 8),); may come from a stranger.
        size: number of coordinates.

    Raises:
        ValueError: another dtype or length, or bits set after the last coordinate.
    """
    num_bytes = (size + 7) // 8
    if packed.dtype != np.uint8 or packed.shape != (num_bytes,):
        raise ValueError(
            f"packed mask: {packed.dtype} of shape {packed.shape}, "
            f"need uint8 of shape ({num_bytes},) for {size} coordinates"
        )
    bits = np.unpackbits(packed)
    if bits[size:].any():
        raise ValueError(f"packed mask: bits are set after coordinate {size}")
    return bits[:size].astype(np.bool_)
