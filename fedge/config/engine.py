"""What carries the messages in a simulation (Hydra group `engine`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.ranges import check_at_least, check_within

ONE_PER_CORE = -1


class EngineKind(StrEnum):
    """The base Grid."""

    local = auto()  # worker processes on this machine
    ray = auto()  # worker processes on the machines of a Ray cluster
    flower = auto()  # Flower's own simulation runtime


class Batching(StrEnum):
    """Whether several clients are computed together."""

    auto = "auto"  # if it is faster for this model, which is measured before the run
    always = "always"  # wherever the model allows it
    never = "never"  # one by one: bit for bit what a device computes


@dataclass(slots=True, kw_only=True)
class EngineConfig:
    """The simulation engine.

    Attributes:
        kind: the base Grid.
        workers: processes that run clients, at most 1024; -1: one per core; 0: this
            process (local only).
        threads: threads of one training step, 1 to 256; small models are fastest
            with 1.
        batching: whether clients of a worker are computed together.
        client_seconds: a client that computes for longer is ended and counts as failed,
            >= 0; 0: no limit.
        memory_mb: memory a worker may use beyond what it starts with, MB, >= 0; a
            client that needs more counts as failed; 0: no limit.
        ray_address: of a running Ray cluster; empty starts Ray on this machine.
        gpus_per_worker: share of a GPU that Ray reserves for a worker, 0 to 1.
    """

    kind: EngineKind = EngineKind.local
    workers: int = ONE_PER_CORE
    threads: int = 1
    batching: Batching = Batching.auto
    client_seconds: float = 0.0
    memory_mb: int = 0
    ray_address: str = ""
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        check_within("engine.workers", self.workers, ONE_PER_CORE, 1024)
        check_within("engine.threads", self.threads, 1, 256)
        check_at_least("engine.client_seconds", self.client_seconds, 0.0)
        check_at_least("engine.memory_mb", self.memory_mb, 0)
        check_within("engine.gpus_per_worker", self.gpus_per_worker, 0.0, 1.0)
