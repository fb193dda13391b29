"""The simulated devices (Hydra group `fleet`)."""

from dataclasses import dataclass, field
from enum import StrEnum, auto

from fedge.config.ranges import (
    check_at_least,
    check_below_one,
    check_more_than,
    check_within,
)
from fedge.errors import ConfigError

# Bounds that keep virtual times far from where a float64 loses whole seconds.
_MIN_MEAN_SECONDS = 1.0
_MAX_MEAN_SECONDS = 366 * 24 * 3600.0
_MAX_SHARE = 1e6


class DeviceKind(StrEnum):
    """The devices whose speed, power and heat are known (docs/fleets.md)."""

    raspberry_pi_zero_2 = auto()
    raspberry_pi_4 = auto()
    raspberry_pi_5 = auto()
    jetson_nano = auto()
    jetson_orin_nano = auto()
    jetson_agx_orin = auto()
    phone = auto()
    laptop = auto()


class AvailabilityKind(StrEnum):
    """When a device can be reached."""

    always = auto()
    diurnal = auto()  # in some hours of its own day
    markov = auto()  # on and off for random times
    trace = auto()  # as it was recorded


class DropPhase(StrEnum):
    """Where in its work a device that drops out stops."""

    any = auto()  # at any moment alike
    download = auto()
    compute = auto()
    upload = auto()


@dataclass(slots=True, kw_only=True)
class FleetConfig:
    """How many devices there are, what they are, and how reliable.

    Attributes:
        num_devices: devices in the fleet, >= 1; 0 takes as many as the data has
            natural owners.
        drop_probability: chance that a device does not answer a training message,
            in [0, 1); drawn from the run's seed.
        drop_phase: where a device that drops out stops; matters in virtual time only.
        profiles: what the devices are: share of each `DeviceKind`, in (0, 1e6], in any
            unit; empty: ideal devices, which take no time.
        torch_free_share: share of the devices that train without PyTorch when
            `train.backend` is onnx, in [0, 1]; kinds that cannot hold it always do.
        straggler_share: share of the devices that are slower than their kind, in
            [0, 1].
        straggler_factor: how many times slower they are, >= 1.
        availability: when devices can be reached.
        online_from_hour, online_until_hour: of the device's day, in [0, 24]; may span
            midnight (diurnal).
        offset_hours: devices' days begin up to so many hours after the first one's, in
            [0, 24] (diurnal).
        mean_online_seconds, mean_offline_seconds: mean durations, from a second to a
            year (markov).
        path: the recorded trace, CSV or parquet (trace).
        flops_per_request: work of one training message, in floating point operations
            and whatever the training settings; 0 computes it from the model, the
            device's examples and the training settings.
    """

    num_devices: int = 20
    drop_probability: float = 0.0
    drop_phase: DropPhase = DropPhase.any
    profiles: dict[str, float] = field(default_factory=dict)
    torch_free_share: float = 1.0
    straggler_share: float = 0.0
    straggler_factor: float = 4.0
    availability: AvailabilityKind = AvailabilityKind.always
    online_from_hour: float = 22.0
    online_until_hour: float = 6.0
    offset_hours: float = 0.0
    mean_online_seconds: float = 3600.0
    mean_offline_seconds: float = 3600.0
    path: str = ""
    flops_per_request: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("fleet.num_devices", self.num_devices, 0)
        check_below_one("fleet.drop_probability", self.drop_probability)
        check_within("fleet.torch_free_share", self.torch_free_share, 0.0, 1.0)
        check_within("fleet.straggler_share", self.straggler_share, 0.0, 1.0)
        check_within("fleet.straggler_factor", self.straggler_factor, 1.0, 1e6)
        check_at_least("fleet.flops_per_request", self.flops_per_request, 0.0)
        self._check_profiles()
        self._check_availability()

    @property
    def is_virtual(self) -> bool:
        """Whether this fleet lives in virtual time; others answer at once or never."""
        return bool(self.profiles) or self.availability is not AvailabilityKind.always

    def _check_profiles(self) -> None:
        known = [kind.value for kind in DeviceKind]
        for name, share in self.profiles.items():
            if name not in known:
                raise ConfigError(
                    f"fleet.profiles: {str(name)[:40]!r} is none of {', '.join(known)}"
                )
            check_more_than(f"fleet.profiles.{name}", share, 0.0)
            check_within(f"fleet.profiles.{name}", share, 0.0, _MAX_SHARE)
        if self.straggler_share > 0.0 and not self.profiles:
            raise ConfigError(
                f"fleet.straggler_share: {self.straggler_share} needs fleet.profiles: "
                f"an ideal device takes no time, however slow"
            )

    def _check_availability(self) -> None:
        for name in ("online_from_hour", "online_until_hour", "offset_hours"):
            check_within(f"fleet.{name}", getattr(self, name), 0.0, 24.0)
        if self.online_from_hour % 24.0 == self.online_until_hour % 24.0:
            raise ConfigError(
                f"fleet.online_until_hour: {self.online_until_hour} is "
                f"fleet.online_from_hour; for devices that are always there use "
                f"fleet.availability=always"
            )
        for name in ("mean_online_seconds", "mean_offline_seconds"):
            check_within(
                f"fleet.{name}",
                getattr(self, name),
                _MIN_MEAN_SECONDS,
                _MAX_MEAN_SECONDS,
            )
        is_trace = self.availability is AvailabilityKind.trace
        if self.path and not is_trace:
            raise ConfigError(
                f"fleet.path: {self.path!r} is read with fleet.availability=trace "
                f"only; use fleet=trace"
            )
        if is_trace and self.profiles:
            raise ConfigError(
                "fleet.profiles: a trace says how fast its devices are; remove the "
                "profiles or use another fleet.availability"
            )
