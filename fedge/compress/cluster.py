"""Weight clustering: the few values that stand for all weights of an array.

Zero is always one of them, so that pruned weights stay pruned. Not in here: how the
result is stored (`codebook`), and training with it (`fedge.train.fake_quant`).

Source: Han, Mao, Dally (2016), "Deep Compression", arXiv:1510.00149, section 3; Lloyd
(1982) for the iteration.
"""

import numpy as np

from fedge.arrays import Float32, Float64, Int64, UInt8

NUM_ENTRIES = 16
_MAX_ITERATIONS = 50


def codebook_of(values: Float32, num_entries: int) -> tuple[Float32, UInt8]:
    """Return a codebook that is close to the values, and each value's nearest entry.

    A local optimum of the squared error; without error for fewer different values than
    entries.

    Args:
        values: finite, any shape.
        num_entries: 2 to 256.

    Returns:
        The entries in rising order, float32 (n,) with n <= num_entries, one of them 0;
        and the index of the nearest entry for each value, uint8, of the shape of
        `values`.

    Raises:
        ValueError: a value is not finite.
    """
    flat = values.astype(np.float64).reshape(-1)
    if not np.isfinite(flat).all():
        raise ValueError("codebook: a weight is not finite")
    entries = _entries(np.sort(flat[flat != 0.0]), num_entries).astype(np.float32)
    return entries, _nearest(entries.astype(np.float64), values).astype(np.uint8)


def _entries(sorted_values: Float64, num_entries: int) -> Float64:
    """Return the codebook of values that are not 0; Lloyd's iteration on a line."""
    distinct = np.unique(sorted_values)
    if len(distinct) < num_entries:
        return _with_zero(distinct)
    shares = (np.arange(num_entries - 1) + 0.5) / (num_entries - 1)
    entries = _with_zero(np.quantile(sorted_values, shares))
    if len(entries) < num_entries:  # a few values are so frequent that quantiles meet
        entries = _with_zero(np.quantile(distinct, shares))
    sums = np.concatenate([[0.0], np.cumsum(sorted_values)])
    for _ in range(_MAX_ITERATIONS):
        middles = (entries[1:] + entries[:-1]) / 2
        ends = np.searchsorted(sorted_values, middles)
        bounds = np.concatenate([[0], ends, [len(sorted_values)]])
        counts = np.diff(bounds)
        means = np.diff(sums[bounds]) / np.maximum(counts, 1)
        moved = _with_zero(np.where((counts > 0) & (entries != 0.0), means, entries))
        if np.array_equal(moved, entries):
            break
        entries = moved
    return entries


def _with_zero(entries: Float64) -> Float64:
    return np.unique(np.append(entries, 0.0))


def _nearest(entries: Float64, values: Float32) -> Int64:
    middles = (entries[1:] + entries[:-1]) / 2
    index: Int64 = np.searchsorted(middles, values)
    # A weight that was pruned is 0 and stays 0, also where an entry lies very near.
    index[values == 0.0] = np.searchsorted(entries, 0.0)
    return index
