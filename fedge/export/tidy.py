"""A float32 ONNX file of any origin, in the form that compression expects.

Passes name what they add after what is there: the scale of `w` is `w_scale`. And int8
with one scale per channel needs operators of opset 13. Files that fit are left alone.
"""

import itertools
from collections.abc import Collection

import onnx
from onnx import version_converter

from fedge.errors import CompressionError

# Of the quantizer's operators, with an axis.
_MIN_OPSET = 13
_WEIGHTS_ARE_NO_INPUTS = 4  # the version of the file format
# What follows the underscore in names that passes and the quantizer make.
_ADDED = (
    "DequantizeLinear", "MatMul", "QuantizeLinear", "cast", "codebook", "index", "int4",
    "int8", "output_scale", "quant", "reshape", "scale", "zero_point",
)  # fmt: skip


def tidy(model: bytes) -> bytes:
    """Return the same network, ready for compression.

    Guarantee: deterministic; the bytes that were given if they are ready already;
    inputs and outputs keep their names.

    Args:
        model: a float32 ONNX file that `check_model` accepts.

    Raises:
        CompressionError: its operators are too old, and cannot be converted; or its
            input and output have names that clash.
    """
    parsed = onnx.load_model_from_string(model)
    is_old = any(
        opset.domain in ("", "ai.onnx") and opset.version < _MIN_OPSET
        for opset in parsed.opset_import
    )
    weights = {array.name for array in parsed.graph.initializer}
    open_inputs = [v for v in parsed.graph.input if v.name not in weights]
    is_whole = len(open_inputs) == len(parsed.graph.input)
    if not is_old and is_whole and not _has_clashes(_names(parsed.graph)):
        return model
    # Old files have weights among the inputs, as if they could change.
    del parsed.graph.input[:]
    parsed.graph.input.extend(open_inputs)
    parsed.ir_version = max(parsed.ir_version, _WEIGHTS_ARE_NO_INPUTS)
    if is_old:
        parsed = _converted(parsed)
    if _has_clashes(_names(parsed.graph)):
        _rename(parsed.graph)
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return version_converter.convert_version(model, _MIN_OPSET)
    except (RuntimeError, ValueError, version_converter.ConvertError) as exc:
        raise CompressionError(
            f"opset: the model's operators cannot be converted to opset {_MIN_OPSET}, "
            f"which int8 needs; export it with opset {_MIN_OPSET} or later"
        ) from exc


def _has_clashes(names: Collection[str]) -> bool:
    """Say whether a name is another one with what a pass could add to it."""
    return any(
        name[:place] in names and name[place + 1 :].startswith(_ADDED)
        for name in names
        for place, character in enumerate(name)
        if character == "_"
    )


def _rename(graph: onnx.GraphProto) -> None:
    """Give all values inside names without an underscore."""
    outside = _outside(graph)
    if _has_clashes(outside):
        raise CompressionError(
            f"names: {' and '.join(sorted(outside))} are an input and an output; "
            "passes would use one for what belongs to the other: rename one"
        )
    letters = "v"
    while any(name.startswith(letters) for name in outside):
        letters += "v"
    free = (f"{letters}{number}" for number in itertools.count())
    new = dict(zip(_inside(graph), free, strict=False))
    for array in graph.initializer:
        array.name = new.get(array.name, array.name)
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    del graph.value_info[:]


def _inside(graph: onnx.GraphProto) -> list[str]:
    """Return the names of weights and results, in their order."""
    outside = _outside(graph)
    names = [array.name for array in graph.initializer]
    names += [name for node in graph.node for name in node.output if name]
    return [name for name in dict.fromkeys(names) if name not in outside]


def _names(graph: onnx.GraphProto) -> set[str]:
    return {*_inside(graph), *_outside(graph)}


def _outside(graph: onnx.GraphProto) -> set[str]:
    return {value.name for value in (*graph.input, *graph.output)}
