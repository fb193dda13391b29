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

from collections.abc import Iterator

from fedge.errors import DataError, VerificationError

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
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


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
    for number, value in _fields(message):
        if kind == "Tensor" and _is_external(number, value):
            raise VerificationError(
                "model file: a tensor refers to external data; export a single file"
            )
        child = _CHILDREN[kind].get(number)
        if child is not None and isinstance(value, memoryview):
            _check(value, child, depth + 1)


def _is_external(number: int, value: int | memoryview) -> bool:
    return number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, varint or bytes) of one message; fixed numbers as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise DataError(f"model file: not ONNX (wire type {kind} at byte {at})")
        if at + size > len(message):
            raise DataError(f"model file: cut off or not ONNX (at byte {at})")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for position in range(_MAX_VARINT_BYTES):
        if at + position >= len(message):
            break
        byte = message[at + position]
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, at + position + 1
    raise DataError(f"model file: cut off or not ONNX (at byte {at})")
