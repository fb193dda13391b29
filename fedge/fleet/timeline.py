"""How long one piece of work takes on one device, and what it costs: closed forms.

A device downloads, computes, uploads. While it does, it warms up as one body with one
resistance to the air (first-order RC): at power P its temperature T goes to
T_end = ambient + R P, as

    T(t) = T_end + (T_0 - T_end) exp(-t / tau).

Where T would pass the limit while it computes, the governor holds it there: the speed
falls to the share s of full speed whose heat the air takes away,

    ambient + R (idle + s (compute - idle)) = limit,

but not below the slowest clock. Power above idle is taken as proportional to speed.
Each piece of work starts at the idle device's temperature: heat is not carried from
one to the next, so that a fate depends on nothing that happened before.
"""

import math
from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.fleet.profiles import DeviceProfile, Thermal

_BITS = 8


class Phase(StrEnum):
    """What a device is doing."""

    download = auto()
    compute = auto()
    upload = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a device is asked for.

    Attributes:
        bytes_down, bytes_up: what it receives and sends.
        flops: floating point operations in between.
    """

    bytes_down: float
    bytes_up: float
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a piece of work went.

    Attributes:
        download_seconds, compute_seconds, upload_seconds: how long each phase took, as
            far as it got.
        arrival_seconds: when it was done, or when it stopped.
        energy_joules: what the device used for it.
        peak_celsius: its highest temperature.
        bytes_down, bytes_up: what crossed its connection.
        stopped_in: the phase in which it stopped; None if it was finished.
    """

    download_seconds: float
    compute_seconds: float
    upload_seconds: float
    arrival_seconds: float
    energy_joules: float
    peak_celsius: float
    bytes_down: int
    bytes_up: int
    stopped_in: Phase | None = None


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A time of constant power and speed, in one phase."""

    phase: Phase
    seconds: float
    watts: float


def arrive(
    profile: DeviceProfile,
    work: Work,
    *,
    start_seconds: float = 0.0,
    slowdown: float = 1.0,
    stop_after_seconds: float = math.inf,
) -> Arrival:
    """Return how the work goes if the device stops after so long.

    Guarantee: time, energy and bytes grow with `stop_after_seconds`, up to those of
    the finished work.

    Args:
        profile: the device.
        work: what it is asked for.
        start_seconds: when it was asked.
        slowdown: how many times slower than its kind it is, in everything; >= 1.
        stop_after_seconds: it drops out so long after it was asked.
    """
    stretches = _plan(profile, work, slowdown)
    total = sum(stretch.seconds for stretch in stretches)
    done, left = [], max(0.0, stop_after_seconds)
    for stretch in stretches:
        done.append(_Stretch(stretch.phase, min(stretch.seconds, left), stretch.watts))
        left -= done[-1].seconds
    spent = {phase: _seconds_of(done, phase) for phase in Phase}
    planned = {phase: _seconds_of(stretches, phase) for phase in Phase}
    return Arrival(
        download_seconds=spent[Phase.download],
        compute_seconds=spent[Phase.compute],
        upload_seconds=spent[Phase.upload],
        arrival_seconds=start_seconds + min(total, max(0.0, stop_after_seconds)),
        energy_joules=sum(stretch.seconds * stretch.watts for stretch in done),
        peak_celsius=_peak(profile, done),
        bytes_down=_part(work.bytes_down, spent, planned, Phase.download),
        bytes_up=_part(work.bytes_up, spent, planned, Phase.upload),
        stopped_in=_stopped_in(spent, planned, stop_after_seconds, total),
    )


def idle_celsius(profile: DeviceProfile) -> float:
    """Return the temperature of the device when it does nothing."""
    return _steady(profile.thermal, profile.idle_watts)


def _plan(profile: DeviceProfile, work: Work, slowdown: float) -> list[_Stretch]:
    """Return the finished work's stretches, in order."""
    latency = profile.latency_seconds
    down = latency + work.bytes_down * _BITS / profile.down_bits_per_second
    up = latency + work.bytes_up * _BITS / profile.up_bits_per_second
    download = _Stretch(Phase.download, down * slowdown, profile.radio_watts)
    warm = _after(profile.thermal, idle_celsius(profile), download)
    at_full_speed = work.flops / profile.flops_per_second * slowdown
    return [
        download,
        *_compute(profile, at_full_speed, warm),
        _Stretch(Phase.upload, up * slowdown, profile.radio_watts),
    ]


def _compute(
    profile: DeviceProfile, seconds: float, celsius: float
) -> tuple[_Stretch, _Stretch]:
    """Split computing into full speed and, if it gets too hot, throttled."""
    cool = min(seconds, _seconds_until_hot(profile, celsius))
    speed = throttled_speed(profile)
    watts = profile.idle_watts + speed * (profile.compute_watts - profile.idle_watts)
    return (
        _Stretch(Phase.compute, cool, profile.compute_watts),
        _Stretch(Phase.compute, (seconds - cool) / speed, watts),
    )


def _seconds_until_hot(profile: DeviceProfile, celsius: float) -> float:
    """Return how long a device of this temperature computes at full speed."""
    heat = profile.thermal
    end = _steady(heat, profile.compute_watts)
    if end <= heat.throttle_celsius:
        return math.inf
    if celsius >= heat.throttle_celsius:
        return 0.0
    ratio = (end - celsius) / (end - heat.throttle_celsius)
    return heat.time_constant_seconds * math.log(ratio)


def throttled_speed(profile: DeviceProfile) -> float:
    """Return the share of full speed that a hot device keeps up, in (0, 1]."""
    heat, idle = profile.thermal, profile.idle_watts
    at_full_speed = heat.degrees_per_watt * (profile.compute_watts - idle)
    room = heat.throttle_celsius - _steady(heat, idle)
    if room >= at_full_speed:
        return 1.0
    return max(heat.throttled_factor, room / at_full_speed)


def _steady(heat: Thermal, watts: float) -> float:
    return heat.ambient_celsius + heat.degrees_per_watt * watts


def _after(heat: Thermal, celsius: float, stretch: _Stretch) -> float:
    """Return the temperature at the end of a stretch."""
    end = _steady(heat, stretch.watts)
    left = math.exp(-stretch.seconds / heat.time_constant_seconds)
    return end + (celsius - end) * left


def _peak(profile: DeviceProfile, stretches: list[_Stretch]) -> float:
    celsius = peak = idle_celsius(profile)
    for stretch in stretches:  # within one the temperature only rises or only falls
        celsius = _after(profile.thermal, celsius, stretch)
        peak = max(peak, celsius)
    return peak


def _seconds_of(stretches: list[_Stretch], phase: Phase) -> float:
    return sum(stretch.seconds for stretch in stretches if stretch.phase is phase)


def _part(
    num_bytes: float, spent: dict[Phase, float], planned: dict[Phase, float], way: Phase
) -> int:
    """Return the bytes that crossed by the time the device stopped."""
    if spent[way] >= planned[way] and not _is_before(spent, planned, way):
        return round(num_bytes)
    return int(num_bytes * spent[way] / planned[way]) if planned[way] else 0


def _is_before(
    spent: dict[Phase, float], planned: dict[Phase, float], way: Phase
) -> bool:
    """Say whether the device stopped before this phase began."""
    earlier = list(Phase)[: list(Phase).index(way)]
    return any(spent[phase] < planned[phase] for phase in earlier)


def _stopped_in(
    spent: dict[Phase, float],
    planned: dict[Phase, float],
    stop_after_seconds: float,
    total: float,
) -> Phase | None:
    if stop_after_seconds >= total:
        return None
    return next((p for p in Phase if spent[p] < planned[p]), Phase.upload)
