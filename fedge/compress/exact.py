"""Does a model give the same bits on every processor? Judged by its operators alone.

Integer arithmetic has one result; sums of floating-point numbers have one for each
order in which a processor adds. So a model computes exactly if every operator that sums
or multiplies stands between DequantizeLinear and QuantizeLinear, which the runtime
fuses into an integer kernel, and its weights have 7 bits, with which no processor's
16-bit sums overflow. Whatever else there is (a softmax, a normalization, a hard-swish,
a recurrent layer, a mean in float32) makes the answer no, also where it might be yes.

Checked by hand for such models on x86-64 with and without VNNI and on four
emulated ARM cores.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from fedge.compress.grid import INT8_LIMIT
from fedge.runtime.model_check import check_model
from fedge.runtime.onnx_file import Node, OnnxFile, Tensor

# They only move or compare numbers, or choose among them.
_MOVING = frozenset((
    "Concat", "Constant", "Flatten", "Identity", "MaxPool", "Pad", "Relu", "Reshape",
    "Squeeze", "Transpose", "Unsqueeze",
))  # fmt: skip
_WEIGHTED = frozenset(("Conv", "Gemm", "MatMul"))
_SUMMING = _WEIGHTED | {"Add", "AveragePool", "GlobalAveragePool"}
_INT8 = 3


def computes_exactly(model: bytes) -> bool:
    """Return whether the outputs are the same, bit for bit, wherever the model runs.

    Conservative: False means that it is not known.

    Args:
        model: an ONNX file.

    Raises:
        DataError, VerificationError: see `check_model`.
    """
    found = check_model(model)
    made_by = {name: node for node in found.nodes for name in node.outputs}
    used_by = defaultdict[str, list[Node]](list)
    for node in found.nodes:
        for name in node.inputs:
            used_by[name].append(node)
    tensors = {tensor.name: tensor for tensor in found.tensors}
    summing = [node for node in found.nodes if node.op_type in _SUMMING]
    return (
        bool(summing)
        and all(_is_known(node) for node in found.nodes)
        and all(_is_integer(node, made_by, used_by, found) for node in summing)
        and all(
            _has_narrow_weights(node, made_by, tensors)
            for node in summing
            if node.op_type in _WEIGHTED
        )
    )


def _is_known(node: Node) -> bool:
    quantizing = ("QuantizeLinear", "DequantizeLinear")
    return not node.domain and node.op_type in _MOVING | _SUMMING | {*quantizing}


def _is_integer(
    node: Node,
    made_by: Mapping[str, Node],
    used_by: Mapping[str, list[Node]],
    found: OnnxFile,
) -> bool:
    """Return whether the runtime can compute the operator in whole numbers."""
    sources = [made_by.get(name) for name in node.inputs if name]
    users = [user for name in node.outputs for user in used_by.get(name, ())]
    return (
        all(s is not None and s.op_type == "DequantizeLinear" for s in sources)
        and bool(users)
        and all(user.op_type == "QuantizeLinear" for user in users)
        and not set(node.outputs) & set(found.outputs)
        and not _is_scaled(node)
    )


def _is_scaled(node: Node) -> bool:
    """Return whether a Gemm multiplies its result, for which no integer kernel is."""
    factors = [a.floats for n, a in node.attributes.items() if n in ("alpha", "beta")]
    return any(np.frombuffer(factor, "<f4").tolist() != [1.0] for factor in factors)


def _has_narrow_weights(
    node: Node, made_by: Mapping[str, Node], tensors: Mapping[str, Tensor]
) -> bool:
    source = made_by.get(node.inputs[1]) if len(node.inputs) > 1 else None
    codes = tensors.get(source.inputs[0]) if source is not None else None
    if codes is None or codes.dtype != _INT8 or codes.raw is None:
        return False
    values = np.frombuffer(codes.raw, np.int8).astype(np.int16)
    return bool(np.abs(values).max(initial=0) <= INT8_LIMIT)
