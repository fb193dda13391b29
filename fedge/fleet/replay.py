"""From a recorded trace to devices: how fast each is, and when it is there.

What is estimated, per device:

- *Computing*: the mean of `compute_seconds` per phase. A replay takes that long,
  whatever the new model needs: a trace says nothing of operations.
- *Connection*: where the trace has `download_seconds` and `upload_seconds`, bytes over
  seconds each way, without latency. Where it has not, bytes over what is left of the
  time between sending and receiving after computing, both ways alike. Only messages of
  at least half of the largest one's size count.
- *Power*: joules over seconds, the same in every phase. No heat.
- *Availability*: online from the first of a series of messages that got through to the
  end of the last one of that series; a message that found it offline, or during which
  it dropped out, ends a series. Before a device's first message and after its last one
  it stays as it was then. The record repeats when it is over.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fedge.errors import DataError
from fedge.fleet.availability import Windows
from fedge.fleet.event import Event, Outcome
from fedge.fleet.profiles import IDEAL, DeviceProfile
from fedge.fleet.timeline import Work

_BITS = 8
# These say that the device was there, from the message to its fate.
_THERE = frozenset({Outcome.ok, Outcome.failed})
_GONE = frozenset({Outcome.offline, Outcome.dropped})


@dataclass(frozen=True, slots=True)
class Recorded:
    """One device of a trace.

    Attributes:
        profile: made from its messages; its operations are seconds.
        seconds_by_phase: mean time to compute by message type.
    """

    profile: DeviceProfile
    seconds_by_phase: Mapping[str, float]

    def work_of(self, phase: str, work: Work) -> Work:
        """Return the work with the recorded time to compute: 0 for an unknown phase."""
        return Work(
            bytes_down=work.bytes_down,
            bytes_up=work.bytes_up,
            flops=self.seconds_by_phase.get(phase, 0.0),
        )


def recorded_fleet(
    events: Sequence[Event],
) -> tuple[Sequence[Recorded], Windows]:
    """Return the devices of a trace, numbered from 0, and when they are there.

    Raises:
        DataError: nothing in the trace took any time.
    """
    begin = min(event.sent_seconds for event in events)
    period = max(event.received_seconds for event in events) - begin
    if period <= 0.0:
        raise DataError("trace: nothing in it took any time")
    by_device: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        by_device[event.device].append(event)
    devices = [by_device[device] for device in sorted(by_device)]
    windows = {
        place: _windows(messages, begin, period)
        for place, messages in enumerate(devices)
    }
    recorded = tuple(_recorded(messages) for messages in devices)
    return (
        recorded,
        Windows(period_seconds=period, windows_by_device=MappingProxyType(windows)),
    )


def _recorded(messages: Sequence[Event]) -> Recorded:
    answered = [event for event in messages if event.outcome is Outcome.ok]
    down, up = _speeds(answered)
    seconds = sum(_seconds(event) for event in answered)
    joules = sum(event.energy_joules for event in answered)
    watts = joules / seconds if seconds > 0.0 else 0.0
    profile = DeviceProfile(
        name="recorded",
        flops_per_second=1.0,
        memory_bytes=IDEAL.memory_bytes,
        down_bits_per_second=down,
        up_bits_per_second=up,
        latency_seconds=0.0,
        idle_watts=watts,
        compute_watts=watts,
        radio_watts=watts,
    )
    return Recorded(profile, _seconds_by_phase(answered))


def _speeds(answered: Sequence[Event]) -> tuple[float, float]:
    """Return bits per second down and up; infinite if nothing took any time."""
    down = [(e.bytes_down, e.download_seconds) for e in answered]
    up = [(e.bytes_up, e.upload_seconds) for e in answered]
    if any(seconds > 0.0 for _, seconds in [*down, *up]):
        return _speed(down), _speed(up)
    both = _speed(
        [
            (e.bytes_down + e.bytes_up, max(0.0, _seconds(e) - e.compute_seconds))
            for e in answered
        ]
    )
    return both, both


def _speed(transfers: Sequence[tuple[int, float]]) -> float:
    """Return bits per second of the large ones; small ones are mostly latency."""
    half = max((num_bytes for num_bytes, _ in transfers), default=0) / 2
    num_bytes = sum(size for size, _ in transfers if size >= half)
    seconds = sum(time for size, time in transfers if size >= half)
    if seconds <= 0.0 or num_bytes == 0:
        return IDEAL.down_bits_per_second
    return num_bytes * _BITS / seconds


def _seconds(event: Event) -> float:
    return event.received_seconds - event.sent_seconds


def _seconds_by_phase(answered: Sequence[Event]) -> Mapping[str, float]:
    by_phase: dict[str, list[float]] = defaultdict(list)
    for event in answered:
        by_phase[event.phase].append(event.compute_seconds)
    means = {phase: sum(times) / len(times) for phase, times in by_phase.items()}
    return MappingProxyType(means)


def _windows(
    messages: Sequence[Event], begin: float, period: float
) -> Sequence[tuple[float, float]]:
    """Return when a device was online, in seconds since the trace began."""
    windows: list[tuple[float, float]] = []
    is_on, since = True, 0.0
    for event in sorted(messages, key=lambda event: event.received_seconds):
        if event.outcome in _THERE and not is_on:
            is_on, since = True, event.sent_seconds - begin
        elif event.outcome in _GONE:
            gone = (
                event.sent_seconds
                if event.outcome is Outcome.offline
                else (event.received_seconds)
            )
            if is_on and gone - begin > since:
                windows.append((since, gone - begin))
            is_on = False
    if is_on and since < period:
        windows.append((since, period))
    return windows
