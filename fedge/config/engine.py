"""What carries the messages in a simulation (Hydra group `engine`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.ranges import check_within


class EngineKind(StrEnum):
    """The base Grid."""

    local = auto()  # in this process


@dataclass(slots=True, kw_only=True)
class EngineConfig:
    """The simulation engine.

    Attributes:
        kind: the base Grid.
        threads: threads of one training step, 1 to 256; small models are fastest
            with 1.
    """

    kind: EngineKind = EngineKind.local
    threads: int = 1

    def __post_init__(self) -> None:
        check_within("engine.threads", self.threads, 1, 256)
