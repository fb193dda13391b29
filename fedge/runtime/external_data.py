"""Refuse ONNX files that point at other files.

An ONNX tensor may say "my values are in that file". The runtime follows such a pointer
even when the model is given to it as bytes, relative to the folder the process happens
to run in: unsigned bytes would become part of a signed model, and any readable file
could be read (CVE-2022-25882, CVE-2024-27318, CVE-2025-51480). A release is one file,
so every tensor with external data is refused, before the runtime sees the model.

What is in here is a walk over the protobuf wire format along the few fields that lead
to a tensor (onnx.proto3); nothing is decoded, large fields are stepped over, and the
`onnx` package is not needed on a device. Fields that this table does not know cannot
hold a tensor that the runtime loads.
"""

from fedge.errors import DataError, VerificationError
from fedge.runtime.protobuf import fields

# message -> {field number: message of that field}; the paths from a model to a tensor.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        **{5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph"},
        **{22: "SparseTensor", 23: "SparseTensor"},
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 64  # nested subgraphs; protobuf itself stops at 100 messages


def check_single_file(model: bytes) -> None:
    """Raise unless every tensor of the ONNX file `model` holds its own values.

    Raises:
        VerificationError: a tensor refers to another file.
        DataError: not a protobuf message, or nested too deeply.
    """
    _check(memoryview(model), "Model", 0)


def _check(message: memoryview, kind: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise DataError(f"model file: nested deeper than {_MAX_DEPTH} messages")
    for number, value in fields(message):
        if kind == "Tensor" and _is_external(number, value):
            raise VerificationError(
                "model file: a tensor refers to external data; export a single file"
            )
        child = _CHILDREN[kind].get(number)
        if child is not None and isinstance(value, memoryview):
            _check(value, child, depth + 1)


def _is_external(number: int, value: int | memoryview) -> bool:
    return number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
