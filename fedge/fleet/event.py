"""What happened to one message: the row of a trace."""

from dataclasses import dataclass
from enum import StrEnum, auto


class Outcome(StrEnum):
    """How a message to a device ended."""

    ok = auto()  # answered in time
    failed = auto()  # answered that it could not do it
    offline = auto()  # could not be reached
    dropped = auto()  # stopped on the way
    memory = auto()  # the model is larger than the device
    late = auto()  # answered after the deadline
    surplus = auto()  # was still at work when enough others had answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One message to one device. The first nine are every trace's columns.

    Attributes:
        device: its place in the fleet, from 0.
        phase: the message's type, such as "train".
        sent_seconds: when the message was sent.
        received_seconds: when its fate was known: its answer's arrival, the moment it
            was given up, or the end of the request it was part of.
        bytes_down, bytes_up: what crossed the device's connection.
        compute_seconds: how long it computed.
        energy_joules: what it used; 0 where nobody measured.
        outcome: how it ended.
        profile: what kind of device it is; empty if unknown.
        group: the message's group id.
        download_seconds, upload_seconds: on the connection.
        peak_celsius: its highest temperature.
        clock_seconds: the time when the whole request was over.
    """

    device: int
    phase: str
    sent_seconds: float
    received_seconds: float
    bytes_down: int
    bytes_up: int
    compute_seconds: float
    energy_joules: float
    outcome: Outcome
    profile: str = ""
    group: str = ""
    download_seconds: float = 0.0
    upload_seconds: float = 0.0
    peak_celsius: float = 0.0
    clock_seconds: float = 0.0
