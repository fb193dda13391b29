"""Weights as indices into a short table of their most typical values.

Each weight matrix is stored as one byte per value, of which four bits say anything
(packing takes the others away), and a codebook of 16 float32 values, from which
constant operators restore the matrix (`stored`). Computes in float32.

Zero is always in the codebook, so that pruned weights stay pruned. Not in here: int8,
which also computes faster (`quantize`).

Source: Han, Mao, Dally (2016), "Deep Compression", arXiv:1510.00149, section 3; Lloyd
(1982) for the iteration. Differs in: the codebook is not trained afterwards.
"""

import numpy as np
import onnx
from onnx import helper

from fedge.arrays import Float32, Float64, Int64, UInt8
from fedge.compress.stored import Stored, is_large_matrix, store

NUM_ENTRIES = 16
_MAX_ITERATIONS = 50


def store_codebook(model: bytes, *, num_entries: int = NUM_ENTRIES) -> bytes:
    """Return the model with its weight matrices stored as codebooks and indices.

    Guarantee: deterministic; zeros stay zeros; a restored weight is the entry of its
    matrix's codebook that is nearest to it; arrays with one axis, and small ones, are
    untouched.

    Args:
        model: float32 ONNX file, weights inside.
        num_entries: values in each codebook, 2 to 256.

    Raises:
        ValueError: `num_entries` is out of range, or a weight is not finite.
    """
    if not 2 <= num_entries <= 256:
        raise ValueError(f"num_entries: {num_entries} not in [2, 256]")
    return store(model, is_large_matrix, lambda name, w: _form(name, w, num_entries))


def codebook_of(values: Float32, num_entries: int) -> tuple[Float32, UInt8]:
    """Return the codebook that is closest to the values, and each value's entry.

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
    if len(sorted_values) == 0:
        return np.zeros(1)
    shares = (np.arange(num_entries - 1) + 0.5) / (num_entries - 1)
    entries = _with_zero(np.quantile(sorted_values, shares))
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


def _form(name: str, values: Float32, num_entries: int) -> Stored:
    entries, index = codebook_of(values, num_entries)
    cast = helper.make_node(
        "Cast", [f"{name}_index"], [f"{name}_cast"], to=onnx.TensorProto.INT32
    )
    gather = helper.make_node(
        "Gather", [f"{name}_codebook", f"{name}_cast"], [name], axis=0
    )
    return Stored({"_codebook": entries, "_index": index}, (cast, gather))
