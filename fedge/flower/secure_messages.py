"""How a session's steps travel in Flower messages: one record beside the app's own.

All steps are sent as the app's own training message, so that the client's mod sees them
and no handler is needed. The record says which step it is.
"""

from enum import StrEnum, auto

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedge.errors import PeerError

RECORD = "fedge.secagg"
VECTOR = "fedge.secagg.vector"


class Step(StrEnum):
    """What a message asks of a client."""

    hello = auto()  # who are you? (once per run)
    fit = auto()  # train; keys and shares
    mask = auto()  # masked update
    confirm = auto()  # sign the survivor set (malicious mode)
    unmask = auto()  # shares of the survivors' seeds and the others' keys


def request(step: Step, **entries: bytes | str) -> ConfigRecord:
    """Return the record of a step."""
    return ConfigRecord({"step": str(step), **entries})


def step_of(content: RecordDict) -> Step | None:
    """Return which step a message asks for; None if it is no session's.

    Raises:
        PeerError: an unknown step.
    """
    record = content.get(RECORD)
    if record is None:
        return None
    if not isinstance(record, ConfigRecord):
        raise PeerError(f"record {RECORD!r} is no config record")
    try:
        return Step(str(record["step"]))
    except (KeyError, ValueError) as exc:
        raise PeerError("session: unknown step") from exc


def bytes_entry(content: RecordDict, name: str) -> bytes:
    """Return one bytes entry of the record; raise PeerError if it is missing."""
    record = content.get(RECORD)
    value = record.get(name) if isinstance(record, ConfigRecord) else None
    if not isinstance(value, bytes):
        raise PeerError(f"session: entry {name!r} is missing")
    return value


def text_entry(content: RecordDict, name: str) -> str:
    """Return one text entry of the record; raise PeerError if it is missing."""
    record = content.get(RECORD)
    value = record.get(name) if isinstance(record, ConfigRecord) else None
    if not isinstance(value, str):
        raise PeerError(f"session: entry {name!r} is missing")
    return value


def answer(data: bytes) -> RecordDict:
    """Return a client's answer to a step."""
    return RecordDict({RECORD: ConfigRecord({"data": data})})


def vector_record(data: bytes) -> ArrayRecord:
    """Return a long answer as an array, which Flower sends in chunks."""
    return ArrayRecord({"data": Array("uint8", (len(data),), "fedge.bytes", data)})


def vector_bytes(content: RecordDict, size: int) -> bytes:
    """Return a long answer's bytes; raise PeerError unless there are `size` of them."""
    record = content.get(VECTOR)
    array = record.get("data") if isinstance(record, ArrayRecord) else None
    if not isinstance(array, Array) or len(array.data) != size:
        raise PeerError(f"session: no vector of {size} bytes")
    return array.data
