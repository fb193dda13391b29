"""Which weights are zero: magnitude masks that only grow, and their form on the wire.

By default every prunable array loses the same share of its own smallest weights. One
threshold for the whole network (`whole`) compares magnitudes that are not comparable (a
layer before a normalization may be scaled freely) and can empty small layers: a mobile
network pruned to 80 % that way falls to chance, which is why a tenth of each array is
kept here. With `group` of every M neighbours along the inputs the same number goes,
which is the N:M pattern that sparse tensor cores want. Not in here: when to prune
(`schedule`), and training under a mask.

Source: Han, Pool, Tran, Dally (2015), arXiv:1506.02626; for N:M, Zhou et al. (2021),
arXiv:2102.04010.
"""

from functools import partial

import numpy as np

from fedge.arrays import AnyArray, Bool, Float32, Int64, ModelSpec, UInt8, check_finite
from fedge.config.compression import PruneScope

_LEAST_KEPT = 0.1  # of each array under `whole`


def magnitude_mask(
    params: Float32,
    spec: ModelSpec,
    *,
    sparsity: float,
    previous: Bool | None = None,
    scope: PruneScope = PruneScope.layer,
    group: int = 4,
) -> Bool:
    """Return which coordinates are kept.

    Guarantee: what `previous` has pruned stays pruned; what is not prunable is kept; no
    array becomes empty; of equal magnitudes the one that comes first goes first. If
    `previous` has not pruned more, exactly so many are pruned: with `layer`
    floor(sparsity * size) of each prunable array; with `group` floor(sparsity * M) of
    every M neighbours (and of the rest of a row); with `whole` floor(sparsity * all)
    of all together, or fewer where a tenth of an array would not be left.

    Args:
        params: the model, float32, shape (d,).
        spec: which coordinates are prunable.
        sparsity: share to prune, in [0, 1).
        previous: the mask so far, bool, shape (d,), True = kept.
        scope: what shares one budget.
        group: M, >= 2.

    Returns:
        A new bool array, shape (d,), True = kept.

    Raises:
        ValueError: a wrong shape, a number out of range, or params that are not finite.
    """
    _check(params, spec, sparsity, previous)
    if group < 2:
        raise ValueError(f"group: {group} must be at least 2")
    mask = np.ones(spec.size, np.bool_) if previous is None else previous.copy()
    places = spec.slices().values()
    for array, place in zip(spec.arrays, places, strict=True):
        if not array.prunable:
            mask[place] = True
        elif scope is PruneScope.layer:
            goal = int(sparsity * array.size)
            mask[place] = _grow(params[place], mask[place], goal)
        elif scope is PruneScope.group:
            along = partial(_along_inputs, shape=array.shape)
            values, kept = along(params[place]), along(mask[place])
            grown = _grow_groups(values, kept, sparsity, group)
            mask[place] = grown.swapaxes(1, 2).reshape(-1)
    if scope is PruneScope.whole:
        _grow_whole(params, mask, spec, sparsity)
    return mask


def _grow(values: Float32, kept: Bool, num_pruned: int) -> Bool:
    """Return `kept` with the smallest values gone until `num_pruned` are."""
    result = kept.copy()
    result[_order(values, kept)[:num_pruned]] = False
    return result


def _order(values: Float32, kept: Bool) -> Int64:
    """Return the places in the order they go in: what is pruned, then the smallest."""
    rank = np.where(kept, np.abs(values), np.float32(-1.0))
    order: Int64 = np.argsort(rank, axis=-1, kind="stable")
    return order


def _along_inputs(values: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """Return a weight's values as (outputs, positions of the kernel, inputs)."""
    return values.reshape(shape[0], shape[1], -1).swapaxes(1, 2)


def _grow_groups(values: AnyArray, kept: AnyArray, sparsity: float, group: int) -> Bool:
    """Return `kept` with the smallest of each group along the last axis gone."""
    result = kept.copy()
    for begin in range(0, values.shape[-1], group):
        place = slice(begin, begin + group)
        part = result[..., place]
        order = _order(values[..., place], part)
        gone = order[..., : int(sparsity * part.shape[-1])]
        np.put_along_axis(part, gone, False, axis=-1)
    return result


def _grow_whole(params: Float32, mask: Bool, spec: ModelSpec, sparsity: float) -> None:
    """Prune, in place, the smallest values of all prunable arrays together."""
    may_go = np.zeros(spec.size, np.bool_)
    total = 0
    for array, place in zip(spec.arrays, spec.slices().values(), strict=True):
        if array.prunable:
            total += array.size
            most = int((1.0 - _LEAST_KEPT) * array.size)
            most = max(most, array.size - int(np.count_nonzero(mask[place])))
            may_go[place][_order(params[place], mask[place])[:most]] = True
    places = np.flatnonzero(may_go)
    order = _order(params[places], mask[places])
    mask[places[order[: int(sparsity * total)]]] = False


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
