"""The fields of ONNX's messages: which are read, and which are refused.

Fields that this table does not know are stepped over: they cannot hold anything that a
runtime loads.

Source: onnx.proto3 (ONNX 1.23).
"""

from collections.abc import Mapping
from typing import NamedTuple

from fedge.runtime.protobuf import BYTES, FIXED32, FIXED64, VARINT

# message -> {field number: kind}. Kinds: i varint, s bytes, f and d fixed numbers; in
# capitals packed or not; another message by its name; * may be repeated; ! is refused.
_SCHEMA: Mapping[str, Mapping[int, str]] = {
    "Model": {
        **{1: "i", 2: "s", 3: "s", 4: "s", 5: "i", 6: "s", 7: "Graph"},
        **{8: "Opset*", 14: "Entry*", 20: "!training steps", 25: "!functions"},
    },
    "Opset": {1: "s", 2: "i"},
    "Entry": {1: "s", 2: "s"},
    "Graph": {
        **{1: "Node*", 2: "s", 5: "Tensor*", 10: "s", 11: "Value*", 12: "Value*"},
        **{13: "Value*", 14: "Annotation*", 15: "!sparse tensors", 16: "Entry*"},
    },
    "Annotation": {1: "s", 2: "Entry*"},
    "Value": {1: "s", 2: "Type", 3: "s", 4: "Entry*"},
    "Type": {
        **{1: "TensorType", 4: "!sequences", 5: "!maps", 6: "s"},
        **{8: "!sparse tensors", 9: "!optional values"},
    },
    "TensorType": {1: "i", 2: "Shape"},
    "Shape": {1: "Dim*"},
    "Dim": {1: "i", 2: "s", 3: "s"},
    "Node": {
        **{1: "s*", 2: "s*", 3: "s", 4: "s", 5: "Attribute*"},
        **{6: "s", 7: "s", 8: "s", 9: "Entry*"},
    },
    "Attribute": {
        **{1: "s", 2: "f", 3: "i", 4: "s", 5: "Tensor", 6: "!subgraphs", 7: "F"},
        **{8: "I", 9: "s*", 10: "!lists of tensors", 11: "!subgraphs", 13: "s"},
        **{14: "!types", 15: "!types", 20: "i", 21: "!functions"},
        **{22: "!sparse tensors", 23: "!sparse tensors"},
    },
    "Tensor": {
        **{1: "I", 2: "i", 3: "!segments", 4: "F", 5: "I", 6: "!text tensors"},
        **{7: "I", 8: "s", 9: "s", 10: "D", 11: "I", 12: "s", 13: "external"},
        **{14: "external", 16: "Entry*"},
    },
}  # fmt: skip
_WIRES = {
    **{"i": (VARINT,), "s": (BYTES,), "f": (FIXED32,)},
    **{"I": (VARINT, BYTES), "F": (FIXED32, BYTES), "D": (FIXED64, BYTES)},
}


class Rule(NamedTuple):
    """A field's kind, taken apart.

    Attributes:
        text: as in the table.
        wires: wire types that are accepted; none if the field is refused.
        child: the message that the field holds; empty for others.
        is_repeated: whether it may be there more than once.
    """

    text: str
    wires: tuple[int, ...]
    child: str
    is_repeated: bool


def _rule(text: str) -> Rule:
    base = text.rstrip("*")
    is_message = base in _SCHEMA
    wires = (BYTES,) if is_message else _WIRES.get(base, ())
    is_repeated = text.endswith("*") or base in ("I", "F", "D")
    return Rule(text, wires, base if is_message else "", is_repeated)


RULES: Mapping[str, Mapping[int, Rule]] = {
    kind: {number: _rule(text) for number, text in schema.items()}
    for kind, schema in _SCHEMA.items()
}
