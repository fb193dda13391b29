"""A run's state as bytes and back: arrays in safetensors, the rest in its header.

Any frozen dataclass of arrays, scalars, and mappings or lists of them can be stored, so
every strategy's state can. No pickle: the reader is told which class to make.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedge.arrays import AnyArray
from fedge.errors import JournalError

T = TypeVar("T")
_ARRAY = "$array"
# What reading bytes that we did not write can raise.
_DAMAGED = (
    AttributeError,
    KeyError,
    RecursionError,
    SafetensorError,
    TypeError,
    ValueError,
)


def to_bytes(state: object) -> bytes:
    """Return the state as safetensors bytes.

    Guarantee: `from_bytes(state, to_bytes(state))` has the same values, bit for bit
    (a tuple inside a mapping or a list comes back as a list).

    Raises:
        TypeError: a field is neither array of numbers, scalar, mapping, list nor
            dataclass, or a mapping's name is no text.
    """
    arrays: dict[str, AnyArray] = {}
    skeleton = _strip(state, "", arrays)
    try:
        return bytes(save(arrays, metadata={"skeleton": json.dumps(skeleton)}))
    except SafetensorError as exc:
        raise TypeError(f"state: cannot store an array ({exc})") from exc


def from_bytes(prototype: T, data: bytes) -> T:
    """Return the state stored in `data`, with the classes of `prototype`.

    Raises:
        JournalError: the bytes are damaged or belong to another class of state.
    """
    try:
        header_size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + header_size])
        skeleton = json.loads(header["__metadata__"]["skeleton"])
        arrays = load(data)
        rebuilt: T = _fill(prototype, skeleton, arrays)
    except _DAMAGED as exc:
        raise JournalError(
            f"stored state: damaged, or not a {type(prototype).__name__}"
        ) from exc
    return rebuilt


def _strip(value: object, path: str, arrays: dict[str, AnyArray]) -> Any:  # noqa: ANN401
    """Move the arrays out of a value; return what is left, ready for JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        # Numbered, because a name in a mapping may itself hold a "/". Not
        # `ascontiguousarray`: it gives a number without axes an axis.
        name = f"{len(arrays)}{path}"
        arrays[name] = np.asarray(value, order="C")
        return {_ARRAY: name}
    if is_dataclass(value):
        value = {part.name: getattr(value, part.name) for part in fields(value)}
    if isinstance(value, Mapping):
        if _ARRAY in value or not all(isinstance(name, str) for name in value):
            raise TypeError(f"state: cannot store the names in {path or '/'}")
        return {k: _strip(v, f"{path}/{k}", arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strip(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]
    raise TypeError(f"state: cannot store a {type(value).__name__} at {path or '/'}")


def _fill(prototype: Any, skeleton: Any, arrays: Mapping[str, AnyArray]) -> Any:  # noqa: ANN401
    """Put the arrays back; dataclasses are made where the prototype has them."""
    if isinstance(skeleton, dict) and skeleton.keys() == {_ARRAY}:
        return arrays[skeleton[_ARRAY]]
    if isinstance(prototype, np.ndarray):
        raise TypeError("an array is missing")
    if is_dataclass(prototype) and not isinstance(prototype, type):
        if skeleton.keys() != {part.name for part in fields(prototype)}:
            raise ValueError("another class's fields")
        parts = {
            part.name: _fill(getattr(prototype, part.name), skeleton[part.name], arrays)
            for part in fields(prototype)
        }
        return type(prototype)(**parts)
    if isinstance(skeleton, dict):
        return {name: _fill(None, part, arrays) for name, part in skeleton.items()}
    if isinstance(skeleton, list):
        filled = [_fill(None, part, arrays) for part in skeleton]
        return tuple(filled) if isinstance(prototype, tuple) else filled
    return skeleton
