"""Weights as indices into a short table of their most typical values.

Each weight matrix is stored as one byte per value, of which four bits say anything
(packing takes the others away), and a codebook of 16 float32 values, from which
constant operators restore the matrix (`stored`). Computes in float32.

Zero is always in the codebook, so that pruned weights stay pruned. Not in here: int8,
which also computes faster (`quantize`).

Source: Han, Mao, Dally (2016), "Deep Compression", arXiv:1510.00149, section 3; Lloyd
(1982) for the iteration. Differs in: the codebook is not trained afterwards.
"""

import onnx
from onnx import helper

from fedge.arrays import Float32
from fedge.compress.cluster import NUM_ENTRIES, codebook_of
from fedge.compress.stored import Stored, is_large_matrix, store


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


def _form(name: str, values: Float32, num_entries: int) -> Stored:
    entries, index = codebook_of(values, num_entries)
    cast = helper.make_node(
        "Cast", [f"{name}_index"], [f"{name}_cast"], to=onnx.TensorProto.INT32
    )
    gather = helper.make_node(
        "Gather", [f"{name}_codebook", f"{name}_cast"], [name], axis=0
    )
    return Stored({"_codebook": entries, "_index": index}, (cast, gather))
