"""An ONNX file's structure, read without trusting it and without the `onnx` package.

What is read is what `fedge.runtime.model_check` judges: tensors, operators, and the
forms of inputs and outputs. What no model of a device needs, and what makes a small
file mean a large or a foreign one, is refused here:

- Tensors in other files. The runtime follows such a pointer even when the model is
  given to it as bytes, relative to the folder the process happens to run in: unsigned
  bytes would become part of a signed model, and any readable file could be read
  (CVE-2022-25882, CVE-2024-27318, CVE-2025-51480).
- Subgraphs (If, Loop, Scan) and local functions: loading repeats what is in them, and
  functions that call functions twice double with every line.
- Sparse tensors, which are made dense when they are loaded.
- A field that is given twice where one is meant: readers merge the two, or take the
  last, and what was checked would not be what is run.

Source: onnx.proto3 (ONNX 1.23).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from fedge.errors import DataError, VerificationError
from fedge.runtime.onnx_schema import RULES
from fedge.runtime.protobuf import (
    MAX_FIELDS,
    VARINT,
    FieldBudget,
    fields,
    signed,
    varints,
)

_Value: TypeAlias = "int | memoryview | _Message"
_Message: TypeAlias = "dict[int, list[_Value]]"

# Fields of an attribute that hold its value: f, i, s, t and their lists.
_VALUES_OF_SETTINGS = (2, 3, 4, 5, 7, 8, 9, 10)
# ONNX's numbers of an attribute's kinds, and the field that each has.
_FIELDS_OF_KINDS = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9}
_WHOLE = 2  # a kind; 0 is not written
_TYPED: tuple[int, ...] = (4, 5, 7, 10, 11)
_MAX_NAME = 1024
_MAX_NUMBERS = 4096  # of an attribute, or axes of a tensor


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the file; nothing about it is checked but that it is in there.

    Attributes:
        name: may be empty (of an attribute).
        dims: as written, of any sign and size.
        dtype: ONNX's number of the type.
        raw: the values as little-endian bytes; None if they are in a typed list.
        typed: the typed list's parts by field number (4, 5, 7, 10, 11).
    """

    name: str
    dims: tuple[int, ...]
    dtype: int
    raw: memoryview | None
    typed: Mapping[int, "list[int | memoryview]"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An operator's setting: the one of these that it has.

    Attributes:
        ints: whole numbers.
        floats: IEEE single precision, little endian, 4 bytes each.
        text: UTF-8.
        tensor: a constant.
    """

    ints: tuple[int, ...] = ()
    floats: bytes = b""
    text: str = ""
    tensor: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """An operator.

    Attributes:
        op_type, domain: its name.
        inputs, outputs: names of values; an empty one is left out.
        attributes: by name.
    """

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What is in an ONNX file.

    Attributes:
        nodes: operators in the file's order.
        tensors: initializers.
        inputs: sides of each graph input; 0 where a side is open.
        outputs: names of the graph's outputs.
        declared: sides that the file claims of results, as of inputs.
        opset: version of ONNX's own operators; 0 if it is not stated.
    """

    nodes: tuple[Node, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    declared: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    opset: int = 0


def read_onnx(model: bytes | memoryview, *, max_fields: int = MAX_FIELDS) -> OnnxFile:
    """Return the structure of an ONNX file.

    Guarantee: needs memory for at most `max_fields` fields, whatever the file holds;
    weights are not copied.

    Raises:
        VerificationError: a tensor refers to another file.
        DataError: not a protobuf message, or it has what is refused (see above).
    """
    message = _parse(memoryview(model), "Model", FieldBudget(max_fields))
    graphs = _messages(message, 7)
    if not graphs:
        raise DataError("model file: not ONNX, or without a graph")
    (graph,) = graphs
    inputs = {_text(m, 1): _sides(m) for m in _messages(graph, 11)}
    results = [*_messages(graph, 12), *_messages(graph, 13)]
    declared = {_text(m, 1): _sides(m) for m in results}
    if len(inputs) + len(declared) != len(_messages(graph, 11)) + len(results):
        raise DataError("model file: a value is declared twice")
    return OnnxFile(
        nodes=tuple(_node(m) for m in _messages(graph, 1)),
        tensors=tuple(_tensor(m) for m in _messages(graph, 5)),
        inputs=inputs,
        outputs=tuple(_text(m, 1) for m in _messages(graph, 12)),
        declared=declared,
        opset=_opset(message),
    )


def _parse(message: memoryview, kind: str, budget: FieldBudget) -> _Message:
    rules, found = RULES[kind], dict[int, list[_Value]]()
    for number, wire, value in fields(message, budget):
        rule = rules.get(number)
        if rule is None:
            continue
        if wire not in rule.wires:
            _refuse(kind, rule.text, wire, value)
            continue
        values = found.setdefault(number, [])
        if values and not rule.is_repeated:
            raise DataError(f"model file: field {number} of a {kind} is there twice")
        if rule.child and isinstance(value, memoryview):
            values.append(_parse(value, rule.child, budget) if value else {})
        else:
            values.append(value)
    return found


def _refuse(kind: str, text: str, wire: int, value: int | memoryview) -> None:
    """Raise unless it is the one harmless value: "the values are in this file"."""
    if text == "external":
        if wire != VARINT or value != 0:
            raise VerificationError(
                "model file: a tensor refers to external data; export a single file"
            )
        return
    if text.startswith("!"):
        raise DataError(
            f"model file: {text[1:]} are not accepted; export the model without them"
        )
    raise DataError(f"model file: a {kind} has a field of wire type {wire}")


def _node(message: _Message) -> Node:
    given = _messages(message, 5)
    attributes = {_text(m, 1): _attribute(m) for m in given}
    if len(attributes) != len(given):
        raise DataError("model file: an operator has a setting twice")
    return Node(
        op_type=_text(message, 4),
        domain=_text(message, 7),
        inputs=_texts(message, 1),
        outputs=_texts(message, 2),
        attributes=attributes,
    )


def _attribute(message: _Message) -> Attribute:
    given = [number for number in _VALUES_OF_SETTINGS if number in message]
    if len(given) > 1:
        raise DataError("model file: a setting has several values")
    kind = next(iter(_numbers(message, 20)), 0)
    if kind and given and given[0] != _FIELDS_OF_KINDS.get(kind):
        raise DataError("model file: a setting is of another kind than it says")
    tensors = _messages(message, 5)
    floats = [v for n in (2, 7) for v in message.get(n, ())]
    ints = (*_numbers(message, 3), *_numbers(message, 8))
    return Attribute(
        ints=(0,) if kind == _WHOLE and not ints else ints,
        floats=b"".join(v for v in floats if isinstance(v, memoryview)),
        text=_text(message, 4),
        tensor=_tensor(tensors[0]) if tensors else None,
    )


def _tensor(message: _Message) -> Tensor:
    typed = {n: _flat(message, n) for n in _TYPED if n in message}
    raw = _flat(message, 9)
    dtype = _flat(message, 2)
    return Tensor(
        name=_text(message, 8),
        dims=_numbers(message, 1),
        dtype=int(dtype[0]) if dtype and isinstance(dtype[0], int) else 0,
        raw=raw[0] if raw and isinstance(raw[0], memoryview) else None,
        typed=typed,
    )


def _sides(value: _Message) -> tuple[int, ...]:
    """Return the sides of an input's declared shape; 0 where one is open."""
    for kind in _messages(value, 2):
        for tensor in _messages(kind, 1):
            for shape in _messages(tensor, 2):
                return tuple(sum(_numbers(d, 1)) for d in _messages(shape, 1))
    return ()


def _opset(model: _Message) -> int:
    own = [m for m in _messages(model, 8) if _text(m, 1) in ("", "ai.onnx")]
    return min((sum(_numbers(m, 2)) for m in own), default=0)


def _messages(message: _Message, number: int) -> list[_Message]:
    return [value for value in message.get(number, ()) if isinstance(value, dict)]


def _flat(message: _Message, number: int) -> list[int | memoryview]:
    return [v for v in message.get(number, ()) if not isinstance(v, dict)]


def _numbers(message: _Message, number: int) -> tuple[int, ...]:
    found: list[int] = []
    for value in _flat(message, number):
        more = (signed(value),) if isinstance(value, int) else varints(value)
        found += islice(more, _MAX_NUMBERS + 1)
        if len(found) > _MAX_NUMBERS:
            raise DataError(
                f"model file: more than {_MAX_NUMBERS} numbers in one setting"
            )
    return tuple(found)


def _texts(message: _Message, number: int) -> tuple[str, ...]:
    views = [v for v in _flat(message, number) if isinstance(v, memoryview)]
    if any(len(view) > _MAX_NAME for view in views):
        raise DataError(f"model file: a name is longer than {_MAX_NAME} bytes")
    try:
        return tuple(bytes(view).decode("utf-8") for view in views)
    except UnicodeDecodeError as exc:  # the runtime raises it later
        raise DataError("model file: a name is not UTF-8") from exc


def _text(message: _Message, number: int) -> str:
    return next(iter(_texts(message, number)), "")
