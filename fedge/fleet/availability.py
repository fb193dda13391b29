"""When a device can be reached: at any moment, of any device, without a simulation.

Every rule answers two questions about one device and one moment, from the seed alone.
Nothing is stored per device and nothing runs from 0, so the last of a million devices
in its tenth year costs as much as the first one now.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from fedge.fleet.draws import Draw, device_rng

_DAY_SECONDS = 24 * 3600.0
_HOUR_SECONDS = 3600.0
# Signals in a cell on average: few draws, and an empty cell (e**-4) is seldom.
_SIGNALS_PER_CELL = 4.0
_MAX_EMPTY_CELLS = 1000  # the chance of so many in a row is below 10**-1000
_FIRST_CELL = 2**40  # added to cell numbers: a generator's indices are not negative


class Availability(Protocol):
    """When devices can be reached."""

    def online_until(self, device: int, seconds: float) -> float:
        """Return the end of the online time that this moment lies in.

        Not later than `seconds` if the device is offline then.
        """

    def online_from(self, device: int, seconds: float) -> float:
        """Return the first moment, not before `seconds`, at which it is online.

        Infinity if there is none.
        """


@dataclass(frozen=True, slots=True)
class Always:
    """Devices that are always there."""

    def online_until(self, device: int, seconds: float) -> float:
        """Return infinity."""
        return math.inf

    def online_from(self, device: int, seconds: float) -> float:
        """Return this moment."""
        return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Diurnal:
    """Devices that are there in some hours of their day, such as while charging.

    Virtual time 0 is midnight on the device with offset 0; the others' days begin up
    to `offset_hours` later, as in another time zone.

    Attributes:
        seed: of the offsets.
        from_hour, until_hour: of the device's day; may span midnight.
        offset_hours: the largest offset.
    """

    seed: int
    from_hour: float
    until_hour: float
    offset_hours: float

    def online_until(self, device: int, seconds: float) -> float:
        """Return the end of the window, or `seconds` outside of it."""
        start = self._last_start(device, seconds)
        return max(seconds, start + self._window_seconds())

    def online_from(self, device: int, seconds: float) -> float:
        """Return this moment, or the beginning of the next window."""
        start = self._last_start(device, seconds)
        if seconds < start + self._window_seconds():
            return seconds
        return start + _DAY_SECONDS

    def _window_seconds(self) -> float:
        return (self.until_hour - self.from_hour) % 24.0 * _HOUR_SECONDS

    def _last_start(self, device: int, seconds: float) -> float:
        offset = device_rng(self.seed, Draw.OFFSET, device).random() * self.offset_hours
        first = (self.from_hour + offset) * _HOUR_SECONDS
        return first + math.floor((seconds - first) / _DAY_SECONDS) * _DAY_SECONDS


class _Signal(IntEnum):
    OFF = 0
    ON = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Markov:
    """Devices that are on and off for exponentially distributed times.

    Two independent streams of signals, "be on" and "be off", are Poisson processes with
    rates 1 / mean_offline and 1 / mean_online. A device is on if its last signal was
    "on". A signal that changes nothing is harmless, so this *is* the two-state Markov
    chain with these means; and since a Poisson process has independent pieces, each
    stream is made cell by cell, from the seed, the device and the cell's number, only
    where somebody looks.

    Attributes:
        seed: of the signals.
        mean_online_seconds, mean_offline_seconds: mean durations, > 0.
    """

    seed: int
    mean_online_seconds: float
    mean_offline_seconds: float

    def online_until(self, device: int, seconds: float) -> float:
        """Return the next "off" signal, or `seconds` if the last one was "off"."""
        last_off = self._last(device, _Signal.OFF, seconds)
        if last_off > self._last(device, _Signal.ON, seconds):
            return seconds
        return self._next(device, _Signal.OFF, seconds)

    def online_from(self, device: int, seconds: float) -> float:
        """Return this moment, or the next "on" signal."""
        if self.online_until(device, seconds) > seconds:
            return seconds
        return self._next(device, _Signal.ON, seconds)

    def _last(self, device: int, signal: _Signal, seconds: float) -> float:
        """Return the last signal of this kind, not after `seconds`."""
        cell = math.floor(seconds / self._cell_seconds(signal))
        for step in range(_MAX_EMPTY_CELLS):
            times = self._signals(device, signal, cell - step)
            before = [time for time in times if time <= seconds]
            if before:
                return before[-1]
        return -math.inf

    def _next(self, device: int, signal: _Signal, seconds: float) -> float:
        """Return the first signal of this kind after `seconds`."""
        cell = math.floor(seconds / self._cell_seconds(signal))
        for step in range(_MAX_EMPTY_CELLS):
            times = self._signals(device, signal, cell + step)
            after = [time for time in times if time > seconds]
            if after:
                return after[0]
        return math.inf

    def _cell_seconds(self, signal: _Signal) -> float:
        is_on = signal is _Signal.ON
        mean = self.mean_offline_seconds if is_on else self.mean_online_seconds
        return mean * _SIGNALS_PER_CELL

    def _signals(self, device: int, signal: _Signal, cell: int) -> Sequence[float]:
        """Return the signals of one cell, ascending."""
        place = cell + _FIRST_CELL
        rng = device_rng(self.seed, Draw.SIGNAL, device, int(signal), place)
        places = rng.random(rng.poisson(_SIGNALS_PER_CELL))
        length = self._cell_seconds(signal)
        return sorted(((cell + places) * length).tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Devices that are there in recorded windows, again and again.

    Attributes:
        period_seconds: length of the record; then it begins anew. > 0.
        windows_by_device: begin and end of each window, ascending, within the period;
            device i behaves as recorded device i modulo their number.
    """

    period_seconds: float
    windows_by_device: Mapping[int, Sequence[tuple[float, float]]]

    def online_until(self, device: int, seconds: float) -> float:
        """Return the end of the window, or `seconds` outside of one."""
        windows, base, place = self._at(device, seconds)
        if self._is_everything(windows):
            return math.inf
        for begin, end in windows:
            if begin <= place < end:
                goes_on = end >= self.period_seconds and windows[0][0] <= 0.0
                over = windows[0][1] if goes_on else 0.0
                return max(seconds, base + end + over)
        return seconds

    def online_from(self, device: int, seconds: float) -> float:
        """Return this moment, or the beginning of the next window."""
        windows, base, place = self._at(device, seconds)
        if not windows:
            return math.inf
        for begin, end in windows:
            if place < end:
                return seconds if begin <= place else base + begin
        return base + self.period_seconds + windows[0][0]

    def _at(
        self, device: int, seconds: float
    ) -> tuple[Sequence[tuple[float, float]], float, float]:
        """Return windows, the record's last beginning, and the time since then."""
        windows = self.windows_by_device[device % len(self.windows_by_device)]
        base = math.floor(seconds / self.period_seconds) * self.period_seconds
        return windows, base, seconds - base

    def _is_everything(self, windows: Sequence[tuple[float, float]]) -> bool:
        return (
            len(windows) == 1
            and windows[0][0] <= 0.0
            and windows[0][1] >= self.period_seconds
        )
