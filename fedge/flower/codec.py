"""Messages between the processes of one simulation, as bytes.

A structure (JSON) and the byte strings it refers to. What a process reads here was
written by its own parent or child: it is decoded strictly, but a client that is meant
to be hostile belongs behind a network, not into the simulator.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedge.errors import MisuseError, PeerError
from fedge.flower.records import received_array, record_of

Plain: TypeAlias = Any  # what `json` reads and writes
Buffer: TypeAlias = bytes | memoryview  # large bytes stay where they were read to

# JSON's numbers are decimal, which takes a time that grows with their square.
_MAX_BITS = 4096

_RECORDS = {"m": MetricRecord, "c": ConfigRecord}


class Blobs:
    """Byte strings that a structure refers to by number; equal objects are kept once.

    Most of what is sent is the same model to everybody: the same object, not a copy.
    """

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self._number_by_id: dict[int, int] = {}

    def add(self, data: bytes) -> int:
        """Return the number of this byte string."""
        number = self._number_by_id.setdefault(id(data), len(self.items))
        if number == len(self.items):
            self.items.append(data)  # which also keeps its id from being used again
        return number


def encode_content(content: RecordDict, blobs: Blobs) -> Plain:
    """Return the structure of a message's content; its bytes go into `blobs`.

    Raises:
        ValueError: it holds a number that `check_content` refuses.
        MisuseError: it holds something else than Flower's records.
    """
    return [[key, *_encode_record(record, blobs)] for key, record in content.items()]


def copy_content(structure: Plain, blobs: Sequence[Buffer], into: Blobs) -> Plain:
    """Return the structure of the same content, with its bytes in `into`."""
    return encode_content(decode_content(structure, blobs), into)


def _encode_record(record: object, blobs: Blobs) -> Plain:
    if isinstance(record, ArrayRecord):
        arrays = [
            [name, array.dtype, array.shape, array.stype, blobs.add(array.data)]
            for name, array in record.items()
        ]
        return ["a", arrays]
    if isinstance(record, MetricRecord):
        return ["m", [[name, value] for name, value in record.items()]]
    if isinstance(record, ConfigRecord):
        return ["c", [[n, _encode_value(value, blobs)] for n, value in record.items()]]
    raise MisuseError(f"message: a {type(record).__name__} is no record of Flower's")


def _encode_value(value: object, blobs: Blobs) -> Plain:
    if isinstance(value, bytes):
        return {"b": blobs.add(value)}
    if isinstance(value, list) and any(isinstance(item, bytes) for item in value):
        return {"l": [_encode_value(item, blobs) for item in value]}
    return value


def check_content(content: RecordDict) -> None:
    """Raise PeerError if `encode_content` could not write this down."""
    for record in content.values():
        if isinstance(record, MetricRecord | ConfigRecord):
            for value in record.values():
                _check_value(value)


def _check_value(value: object) -> None:
    for item in value if isinstance(value, list) else [value]:
        if type(item) is int and item.bit_length() > _MAX_BITS:
            raise PeerError(f"message: a whole number of more than {_MAX_BITS} bits")


def decode_content(structure: Plain, blobs: Sequence[Buffer]) -> RecordDict:
    """Undo `encode_content`; arrays' values stay in the bytes that are given."""
    content = RecordDict()
    for key, kind, entries in structure:
        content[key] = _decode_record(kind, entries, blobs)
    return content


def _decode_record(
    kind: str, entries: Plain, blobs: Sequence[Buffer]
) -> ArrayRecord | MetricRecord | ConfigRecord:
    if kind == "a":
        return record_of(
            {
                name: received_array(dtype, tuple(shape), stype, blobs[number])
                for name, dtype, shape, stype, number in entries
            }
        )
    if kind == "m":
        return MetricRecord(dict(entries))
    return ConfigRecord({n: _decode_value(value, blobs) for n, value in entries})


def _decode_value(value: Plain, blobs: Sequence[Buffer]) -> Plain:
    if not isinstance(value, dict):
        return value
    if "b" in value:
        return bytes(blobs[value["b"]])
    return [_decode_value(item, blobs) for item in value["l"]]


def to_text(structure: Plain) -> bytes:
    """Return a structure as bytes."""
    return json.dumps(structure, separators=(",", ":")).encode("ascii")


def from_text(data: bytes) -> Plain:
    """Undo `to_text`."""
    return json.loads(data)
