"""Secure aggregation (Hydra group `secagg`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.ranges import check_at_least, check_more_than
from fedge.errors import ConfigError


class SecAggMode(StrEnum):
    """Against which server updates are protected."""

    off = auto()  # sums in the clear
    semi_honest = auto()  # a server that follows the protocol, and drop-outs
    malicious = auto()  # also one that lies about who survived: one more trip


class ProfileName(StrEnum):
    """Ring and value bits: fewer bits, fewer bytes, coarser updates."""

    r16 = auto()  # 16-bit ring, 8-bit values, up to 258 clients
    r20 = auto()  # 20 / 12
    r24 = auto()  # 24 / 16
    r32 = auto()  # 32 / 16, up to 65,538 clients


@dataclass(slots=True, kw_only=True)
class SecAggConfig:
    """How updates are protected.

    Attributes:
        mode: against which server.
        profile: ring and value bits.
        clip: largest change of one parameter in one round; larger ones are clipped, and
            their share is reported. > 0.
        max_weight: examples beyond this do not make a device heavier, > 0.
        min_cohort: fewest devices that a session, and any sum that is opened, may hold;
            devices refuse less. >= 3.
        max_corrupt: devices that may collude with the server; 0 assumes a tenth of the
            cohort.
        degree: neighbours of each device; 0 chooses by the cohort's size.
        threshold: shares that recover a secret; 0 chooses by the cohort's size.
        phase_seconds: patience of each short trip, > 0.
    """

    mode: SecAggMode = SecAggMode.semi_honest
    profile: ProfileName = ProfileName.r24
    clip: float = 1.0
    max_weight: float = 1024.0
    min_cohort: int = 5
    max_corrupt: int = 0
    degree: int = 0
    threshold: int = 0
    phase_seconds: float = 600.0

    def __post_init__(self) -> None:
        check_more_than("secagg.clip", self.clip, 0.0)
        check_more_than("secagg.max_weight", self.max_weight, 0.0)
        check_at_least("secagg.min_cohort", self.min_cohort, 3)
        check_at_least("secagg.max_corrupt", self.max_corrupt, 0)
        check_more_than("secagg.phase_seconds", self.phase_seconds, 0.0)
        for name in ("degree", "threshold"):
            value = getattr(self, name)
            if value != 0 and value < 2:
                raise ConfigError(
                    f"secagg.{name}: {value} must be at least 2, or 0 to choose"
                )
        if self.threshold and not self.degree:
            raise ConfigError("secagg.threshold: needs secagg.degree as well")
