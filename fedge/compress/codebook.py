"""Weights as indices into a short table of their most typical values.

Each weight matrix is stored as one byte per value, of which four bits say anything
(packing takes the others away), and a codebook of 16 float32 values. Two constant
operators restore the matrix, and the runtime computes them once when it loads the
file: any layer can be stored like this, and a prediction takes as long as in float32.

Zero is always in the codebook, so that pruned weights stay pruned. Not in here: int8,
which also computes faster (`quantize`).

Source: Han, Mao, Dally (2016), "Deep Compression", arXiv:1510.00149, section 3; Lloyd
(1982) for the iteration. Differs in: the codebook is not trained afterwards.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fedge.arrays import Float32, Float64, Int64, UInt8

NUM_ENTRIES = 16
_MIN_VALUES = 256  # below, codebook and operators take as much as they save
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
    parsed = onnx.load_model_from_string(model)
    graph = parsed.graph
    weights = [w for w in graph.initializer if _is_stored(w)]
    nodes = [node for w in weights for node in _store(graph, w, num_entries)]
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *others])  # in the order of computation
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


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


def _is_stored(array: onnx.TensorProto) -> bool:
    is_matrix = array.data_type == onnx.TensorProto.FLOAT and len(array.dims) > 1
    return is_matrix and int(np.prod(array.dims)) >= _MIN_VALUES


def _store(
    graph: onnx.GraphProto, weight: onnx.TensorProto, num_entries: int
) -> list[onnx.NodeProto]:
    """Replace one initializer; return the operators that restore it by its old name."""
    name = weight.name
    entries, index = codebook_of(numpy_helper.to_array(weight), num_entries)
    graph.initializer.remove(weight)
    graph.initializer.append(numpy_helper.from_array(entries, f"{name}_codebook"))
    graph.initializer.append(numpy_helper.from_array(index, f"{name}_index"))
    cast = helper.make_node(
        "Cast", [f"{name}_index"], [f"{name}_cast"], to=onnx.TensorProto.INT32
    )
    gather = helper.make_node(
        "Gather", [f"{name}_codebook", f"{name}_cast"], [name], axis=0
    )
    return [cast, gather]
