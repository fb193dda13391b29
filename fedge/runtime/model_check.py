"""Is it safe to hand these bytes to a runtime? Asked before anything parses them.

`check_model` reads the file's structure (`onnx_file`) and refuses what would make a
small file cost much memory or time while it is loaded, or compute nonsense: tensors
whose declared shape is not what the file holds, values that are not numbers, operators
from unknown libraries, and constants that grow when the runtime folds them (`growth`).

Not in here: what a model needs while it runs on real inputs. That is tried out before,
in a child process under limits (`fedge.release.health`, `fedge.runtime.selftest`).
"""

import math
from collections.abc import Iterator

import numpy as np

from fedge.arrays import AnyArray
from fedge.errors import DataError
from fedge.runtime.growth import check_growth
from fedge.runtime.onnx_file import Node, OnnxFile, Tensor, read_onnx

# Models for edge devices are a few megabytes.
MAX_MODEL_BYTES = 256 * 1024 * 1024
MAX_AXES = 16
MAX_SIDE = 2**31 - 1
# A list of typed numbers takes up to eight times its bytes in memory; exporters write
# weights as raw bytes.
MAX_TYPED = 1_000_000
# One example; twice a picture of 4 megapixels.
MAX_INPUT_ELEMENTS = 2**23

# Before, sizes were settings of an operator in some cases and inputs in others.
_MIN_OPSET = 11
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_BITS_BY_DTYPE = {
    **{1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64},
    **{12: 32, 13: 64, 16: 16, 21: 4, 22: 4},
}
_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
_BFLOAT16 = 16
_CHUNK = 1 << 18  # values looked at together
_FLOAT_DATA, _DOUBLE_DATA = 4, 10


def check_model(model: bytes | memoryview) -> OnnxFile:
    """Return the structure of an ONNX file that is safe to load.

    Guarantee: reading it here takes less than 64 MiB; every tensor has exactly the
    bytes of its declared shape and no NaN or +inf; all constants that a runtime can
    make while loading are together at most a few times as large as the file, or
    `growth.MAX_ELEMENTS`.

    -inf is a number here: attention masks are made of it.

    Raises:
        VerificationError: a tensor refers to another file.
        DataError: anything else that is refused; the message names it.
    """
    if len(model) > MAX_MODEL_BYTES:
        raise DataError(
            f"model file: {len(model)} bytes, at most {MAX_MODEL_BYTES} are accepted"
        )
    found = read_onnx(model)
    if not found.nodes or not found.outputs:
        raise DataError("model file: not ONNX, or without operators or outputs")
    if found.opset < _MIN_OPSET:
        raise DataError(
            f"model file: operators of version {found.opset}; export it with opset "
            f"{_MIN_OPSET} or later"
        )
    _check_inputs(found)
    for name, sides in found.declared.items():
        _check_sides(name, sides)
    for tensor in _tensors(found):
        _check_tensor(tensor)
    for node in found.nodes:
        _check_node(node)
    check_growth(found)
    return found


def _tensors(found: OnnxFile) -> Iterator[Tensor]:
    yield from found.tensors
    for node in found.nodes:
        for attribute in node.attributes.values():
            if attribute.tensor is not None:
                yield attribute.tensor


def _check_inputs(found: OnnxFile) -> None:
    for name, sides in found.inputs.items():
        _check_sides(name, sides)
        if math.prod(side or 1 for side in sides) > MAX_INPUT_ELEMENTS:
            raise DataError(
                f"model file: input {name[:40]!r} of shape {sides}, at most "
                f"{MAX_INPUT_ELEMENTS} values are accepted"
            )


def _check_sides(name: str, sides: tuple[int, ...]) -> None:
    if len(sides) > MAX_AXES or not all(0 <= side <= MAX_SIDE for side in sides):
        raise DataError(
            f"model file: {name[:40]!r} declares the shape {str(sides)[:80]}; at most "
            f"{MAX_AXES} axes with sides from 0 to {MAX_SIDE}"
        )


def _check_node(node: Node) -> None:
    if node.domain not in _DOMAINS:
        raise DataError(
            f"model file: operator {node.op_type[:40]!r} of the library "
            f"{node.domain[:40]!r}; accepted are {_DOMAINS}"
        )
    for name, attribute in node.attributes.items():
        floats = attribute.floats
        if len(floats) % 4 or np.isnan(np.frombuffer(floats, "<f4")).any():
            raise DataError(
                f"model file: {node.op_type[:40]}.{name[:40]} is NaN or cut off"
            )


def _check_tensor(tensor: Tensor) -> None:
    """Raise DataError unless the tensor has the values that it declares."""
    name = tensor.name[:40]
    _check_sides(name, tensor.dims)
    bits = _BITS_BY_DTYPE.get(tensor.dtype)
    if bits is None:
        raise DataError(f"model file: {name!r} has the type {tensor.dtype}")
    need = math.prod(tensor.dims)
    if tensor.raw is not None and not tensor.typed:
        has, need = len(tensor.raw), (need * bits + 7) // 8
    else:
        has = _typed_count(tensor)
    if has != need:
        raise DataError(
            f"model file: {name!r} of shape {tensor.dims} needs {need} bytes or "
            f"values and has {has}"
        )
    for values in _float_parts(tensor):
        _check_numbers(name, values)


def _typed_count(tensor: Tensor) -> int:
    """Return the number of values in the tensor's one typed list."""
    if tensor.raw is not None or len(tensor.typed) > 1:
        raise DataError(f"model file: {tensor.name[:40]!r} holds its values twice")
    count = 0
    for number, parts in tensor.typed.items():
        count += sum(_count(number, part) for part in parts)
    if count > MAX_TYPED:
        raise DataError(
            f"model file: {tensor.name[:40]!r} has {count} values in a list, at most "
            f"{MAX_TYPED}; export them as raw bytes"
        )
    return count


def _count(number: int, part: int | memoryview) -> int:
    if isinstance(part, int):
        return 1
    if number in (_FLOAT_DATA, _DOUBLE_DATA):
        width = 4 if number == _FLOAT_DATA else 8
        # Not a whole number of values: one more than any shape can ask for.
        return len(part) // width if len(part) % width == 0 else MAX_TYPED + 1
    return int(np.count_nonzero(np.frombuffer(part, np.uint8) < 0x80))


def _float_parts(tensor: Tensor) -> Iterator[AnyArray]:
    """Yield the tensor's values as floating-point arrays, without copying large ones.

    Raises:
        DataError: half-precision values in a list of whole numbers.
    """
    for number, dtype in ((_FLOAT_DATA, "<f4"), (_DOUBLE_DATA, "<f8")):
        for part in tensor.typed.get(number, ()):
            if isinstance(part, memoryview):
                yield np.frombuffer(part, dtype)
    if tensor.dtype in (10, _BFLOAT16) and tensor.typed:
        raise DataError("model file: half-precision values must be raw bytes")
    if tensor.raw is None:
        return
    if tensor.dtype in _FLOATS:
        yield np.frombuffer(tensor.raw, _FLOATS[tensor.dtype])
    elif tensor.dtype == _BFLOAT16:
        halves = np.frombuffer(tensor.raw, "<u2")
        for start in range(0, len(halves), _CHUNK):
            wide = halves[start : start + _CHUNK].astype("<u4") << 16
            yield wide.view("<f4")


def _check_numbers(name: str, values: AnyArray) -> None:
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        # A NaN or +inf is the largest value, or makes the largest value NaN.
        if not part.max() < np.inf:
            raise DataError(
                f"model file: {name!r} holds a value that is NaN or infinite; has the "
                "training diverged?"
            )
