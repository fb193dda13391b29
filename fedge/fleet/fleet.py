"""A fleet: what each device is, and how its work goes, as functions of the seed.

Nothing is stored per device. A million devices cost nothing until one is asked, and
then as much as that one.
"""

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from fedge.config.fleet import AvailabilityKind, DeviceKind, DropPhase, FleetConfig
from fedge.errors import ConfigError
from fedge.fleet.availability import Always, Availability, Diurnal, Markov
from fedge.fleet.draws import Draw, device_rng, number_of
from fedge.fleet.event import Outcome
from fedge.fleet.profiles import IDEAL, PROFILES, DeviceProfile
from fedge.fleet.replay import Recorded, recorded_fleet
from fedge.fleet.timeline import Arrival, Work, arrive
from fedge.fleet.trace import read_trace

# Parameters, gradient, momentum and the update: what training holds at least.
_COPIES_IN_MEMORY = 4
_TRAIN = "train"
_ALWAYS = Always()


@dataclass(frozen=True, slots=True)
class Device:
    """One device.

    Attributes:
        profile: its kind.
        slowdown: how many times slower than its kind it is, >= 1.
        has_torch: whether it can train with PyTorch.
    """

    profile: DeviceProfile
    slowdown: float = 1.0
    has_torch: bool = True


@dataclass(frozen=True, slots=True)
class Journey:
    """What becomes of one message.

    Attributes:
        outcome: `ok`, `offline`, `dropped` or `memory`.
        arrival: times and costs, as far as the device got.
    """

    outcome: Outcome
    arrival: Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Devices that differ, come and go, and drop out.

    Guarantee: equal settings and seed give equal devices and journeys, whatever is
    asked in which order.

    Attributes:
        num_devices: how many.
        seed: of everything random.
        kinds: profiles and their cumulative shares, which end in 1.
        availability: when they can be reached.
        straggler_share, straggler_factor: how many are how many times slower.
        drop_probability: chance that a device does not finish a training message.
        drop_phase: where it stops then.
        torch_free_share: how many have no PyTorch, besides kinds that cannot have it.
        recorded: devices of a trace, used in turn; empty uses `kinds`.
    """

    num_devices: int
    seed: int
    kinds: Sequence[tuple[DeviceProfile, float]] = ((IDEAL, 1.0),)
    availability: Availability = _ALWAYS
    straggler_share: float = 0.0
    straggler_factor: float = 1.0
    drop_probability: float = 0.0
    drop_phase: DropPhase = DropPhase.any
    torch_free_share: float = 0.0
    recorded: Sequence[Recorded] = ()

    def device(self, index: int) -> Device:
        """Return a device.

        Raises:
            IndexError: there is no such device.
        """
        if not 0 <= index < self.num_devices:
            raise IndexError(f"device {index} not in [0, {self.num_devices})")
        rng = device_rng(self.seed, Draw.DEVICE, index)
        kind, luck, equipment = rng.random(3).tolist()
        is_free = equipment < self.torch_free_share
        if self.recorded:
            recorded = self.recorded[index % len(self.recorded)].profile
            return Device(recorded, has_torch=not is_free)
        place = bisect.bisect_right([share for _, share in self.kinds], kind)
        profile = self.kinds[min(place, len(self.kinds) - 1)][0]
        is_slow = luck < self.straggler_share
        return Device(
            profile,
            self.straggler_factor if is_slow else 1.0,
            has_torch=profile.fits_torch and not is_free,
        )

    def journey(
        self,
        index: int,
        *,
        phase: str,
        fate: str,
        work: Work,
        start_seconds: float,
    ) -> Journey:
        """Return what becomes of one message.

        Args:
            index: the device.
            phase: the message's type; only training drops out by chance.
            fate: a name for this message, such as its round: another, another fate.
            work: what is asked; a recorded device takes its own time to compute.
            start_seconds: when the message is sent.
        """
        device = self.device(index)
        if self.recorded:
            recorded = self.recorded[index % len(self.recorded)]
            work = recorded.work_of(phase, work)
        online_seconds = (
            self.availability.online_until(index, start_seconds) - start_seconds
        )
        if online_seconds <= 0.0:
            return self._stopped(Outcome.offline, device, work, start_seconds, 0.0)
        if work.bytes_down * _COPIES_IN_MEMORY > device.profile.memory_bytes:
            return self._stopped(Outcome.memory, device, work, start_seconds, 0.0)
        whole = arrive(
            device.profile, work, start_seconds=start_seconds, slowdown=device.slowdown
        )
        seconds = whole.download_seconds + whole.compute_seconds + whole.upload_seconds
        stop = self._drop_seconds(index, phase, fate, whole)
        if stop is None and seconds <= online_seconds:
            return Journey(Outcome.ok, whole)
        stop = min(online_seconds, math.inf if stop is None else stop)
        return self._stopped(Outcome.dropped, device, work, start_seconds, stop)

    def online_from(self, index: int, seconds: float) -> float:
        """Return when the device can be reached, not before `seconds`."""
        return self.availability.online_from(index, seconds)

    def _drop_seconds(
        self, index: int, phase: str, fate: str, whole: Arrival
    ) -> float | None:
        """Return how long after it was asked the device drops out, if it does."""
        if not phase.startswith(_TRAIN) or self.drop_probability == 0.0:
            return None
        rng = device_rng(self.seed, Draw.FATE, index, number_of(fate))
        luck, place = rng.random(2).tolist()
        if luck >= self.drop_probability:
            return None
        begin, seconds = _span(self.drop_phase, whole)
        return float(begin + place * seconds)

    def _stopped(
        self,
        outcome: Outcome,
        device: Device,
        work: Work,
        start_seconds: float,
        after_seconds: float,
    ) -> Journey:
        arrival = arrive(
            device.profile,
            work,
            start_seconds=start_seconds,
            slowdown=device.slowdown,
            stop_after_seconds=after_seconds,
        )
        return Journey(outcome, arrival)


def make_fleet(config: FleetConfig, *, num_devices: int, seed: int) -> Fleet:
    """Return the fleet that the settings describe; reads a trace if they name one.

    Args:
        config: the settings.
        num_devices: how many devices (`fleet.num_devices`, or the data's owners).
        seed: the run's seed.

    Raises:
        ConfigError: `fleet.path` is empty or cannot be read here.
        DataError: the trace is damaged.
    """
    recorded: Sequence[Recorded] = ()
    availability = _availability(config, seed)
    if config.availability is AvailabilityKind.trace:
        if not config.path:
            raise ConfigError(
                "fleet.path: empty, but fleet=trace reads a trace; set fleet.path=FILE "
                "or the environment variable FEDGE_FLEET_TRACE"
            )
        recorded, availability = recorded_fleet(read_trace(Path(config.path)))
    return Fleet(
        num_devices=num_devices,
        seed=seed,
        kinds=_kinds(config.profiles),
        availability=availability,
        straggler_share=config.straggler_share,
        straggler_factor=config.straggler_factor,
        drop_probability=config.drop_probability,
        drop_phase=config.drop_phase,
        torch_free_share=config.torch_free_share,
        recorded=recorded,
    )


def _availability(config: FleetConfig, seed: int) -> Availability:
    match config.availability:
        case AvailabilityKind.always | AvailabilityKind.trace:
            return Always()
        case AvailabilityKind.diurnal:
            return Diurnal(
                seed=seed,
                from_hour=config.online_from_hour,
                until_hour=config.online_until_hour,
                offset_hours=config.offset_hours,
            )
        case AvailabilityKind.markov:
            return Markov(
                seed=seed,
                mean_online_seconds=config.mean_online_seconds,
                mean_offline_seconds=config.mean_offline_seconds,
            )
        case _:
            assert_never(config.availability)


def _kinds(shares: Mapping[str, float]) -> Sequence[tuple[DeviceProfile, float]]:
    """Return profiles and cumulative shares; by name, so that order is no setting."""
    if not shares:
        return ((IDEAL, 1.0),)
    names = sorted(shares)
    sums = list(itertools.accumulate(shares[name] for name in names))
    return tuple(
        (PROFILES[DeviceKind(name)], total / sums[-1])
        for name, total in zip(names, sums, strict=True)
    )


def _span(phase: DropPhase, whole: Arrival) -> tuple[float, float]:
    """Return when this part of the work begins, and how long it takes."""
    down, compute = whole.download_seconds, whole.compute_seconds
    match phase:
        case DropPhase.any:
            return 0.0, down + compute + whole.upload_seconds
        case DropPhase.download:
            return 0.0, down
        case DropPhase.compute:
            return down, compute
        case DropPhase.upload:
            return down + compute, whole.upload_seconds
        case _:
            assert_never(phase)
