"""What is in an ONNX file, in a few lines: for whoever wonders what was shipped."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from fedge.arrays import AnyArray
from fedge.errors import CompressionError, DataError
from fedge.export.macs import count_macs
from fedge.runtime.model_check import check_model

# How names of arrays end that weights are stored in.
_ENDINGS = {
    ("_codebook", "_index"): "codebook",
    ("_int4", "_scale"): "int4",
    ("_int8", "_scale"): "int8",
}


@dataclass(frozen=True, slots=True)
class Description:
    """An ONNX file.

    Attributes:
        inputs, outputs: name, type and shape of each, as text.
        operators: how many there are of each type, most frequent first.
        bytes_by_dtype: of the arrays in the file.
        num_parameters: values of all float32 arrays.
        num_weights: values of the arrays with two or more axes.
        sparsity: share of zeros among them; NaN if there are none.
        quantization: "float32", "int8", "dynamic", "int4" or "codebook".
        fixed_batch: whether an input's first axis has a fixed length.
        macs: multiply-accumulate operations for one example; NaN if they cannot be
            counted.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]
    bytes_by_dtype: Mapping[str, int]
    num_parameters: int
    num_weights: int
    sparsity: float
    quantization: str
    macs: float
    fixed_batch: bool


def describe(model: bytes) -> Description:
    """Return what is in an ONNX file.

    Raises:
        DataError: it is none, damaged, or refused by `check_model`.
        VerificationError: it refers to other files.
    """
    check_model(model)
    try:
        graph = onnx.load_model_from_string(model).graph
        arrays = {a.name: numpy_helper.to_array(a) for a in graph.initializer}
    except (DecodeError, ValueError, TypeError) as exc:
        raise DataError("model file: not ONNX, or damaged") from exc
    operators = Counter(node.op_type for node in graph.node)
    weights = [
        _values(name, arrays)
        for name, array in arrays.items()
        if array.ndim > 1 and not _is_scale(name, arrays)
    ]
    total = sum(w.size for w in weights)
    zeros = total - sum(int(np.count_nonzero(w)) for w in weights)
    sizes: Counter[str] = Counter()
    for array in arrays.values():
        sizes[str(array.dtype)] += array.nbytes
    return Description(
        inputs=tuple(map(_value_text, graph.input)),
        outputs=tuple(map(_value_text, graph.output)),
        operators=dict(operators.most_common()),
        bytes_by_dtype=dict(sizes.most_common()),
        num_parameters=sum(a.size for a in arrays.values() if a.dtype == np.float32),
        num_weights=total,
        sparsity=zeros / total if total else float("nan"),
        quantization=_quantization(arrays, operators),
        macs=_macs(model),
        fixed_batch=any(
            _has_fixed_batch(v) for v in graph.input if v.name not in arrays
        ),
    )


def _quantization(arrays: Collection[str], operators: Collection[str]) -> str:
    for (ending, companion), quantization in _ENDINGS.items():
        stems = [n.removesuffix(ending) for n in arrays if n.endswith(ending)]
        if any(f"{stem}{companion}" in arrays for stem in stems):
            return quantization
    if any(name.startswith("Dynamic") for name in operators):
        return "dynamic"
    return "int8" if "DequantizeLinear" in operators else "float32"


def _is_scale(name: str, arrays: Collection[str]) -> bool:
    """Say whether an array belongs to another one that holds a weight's codes."""
    stem, found, _ = name.rpartition("_scale")
    return bool(found) and (f"{stem}_int4" in arrays or f"{stem}_int8" in arrays)


def _has_fixed_batch(value: onnx.ValueInfoProto) -> bool:
    sides = value.type.tensor_type.shape.dim
    return bool(sides) and sides[0].HasField("dim_value")


def _macs(model: bytes) -> float:
    try:
        return float(count_macs(model))
    except CompressionError:
        return float("nan")


def _values(name: str, arrays: Mapping[str, AnyArray]) -> AnyArray:
    """Return a weight's values; of a codebook's indices, what they stand for."""
    book, index = arrays.get(f"{name.removesuffix('_index')}_codebook"), arrays[name]
    is_table = book is not None and book.ndim == 1 and index.dtype == np.uint8
    if book is None or not is_table or index.max(initial=0) >= len(book):
        return index
    return book[index]


def _value_text(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    known = kind.elem_type in onnx.TensorProto.DataType.values() and kind.elem_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type) if known else "?"
    sides = [dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim]
    return f"{value.name} {dtype} ({', '.join(sides)})"
