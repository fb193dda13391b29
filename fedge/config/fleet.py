"""The simulated devices (Hydra group `fleet`)."""

from dataclasses import dataclass

from fedge.config.ranges import check_at_least, check_below_one


@dataclass(slots=True, kw_only=True)
class FleetConfig:
    """How many devices there are and how reliable they are.

    Attributes:
        num_devices: devices in the fleet, >= 1; 0 takes as many as the data has
            natural owners.
        drop_probability: chance that a device does not answer a training message,
            in [0, 1); drawn from the run's seed.
    """

    num_devices: int = 20
    drop_probability: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("fleet.num_devices", self.num_devices, 0)
        check_below_one("fleet.drop_probability", self.drop_probability)
