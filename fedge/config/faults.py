"""What goes wrong in a simulation (Hydra group `faults`).

Every fault is drawn from the run's seed, so that a run with faults can be repeated and
resumed. `docs/faults.md` says what each does and what it must not break.
"""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.ranges import check_at_least, check_below_one, check_within

_PROBABILITIES = (
    "drop",
    "delay",
    "duplicate",
    "truncate",
    "bit_flip",
    "replay",
    "nan",
    "client_crash",
)
# Held back replies are kept in memory: as many as these at most.
_MAX_HELD = 1000


class CrashKind(StrEnum):
    """How a client dies."""

    error = auto()  # its handler raises
    kill = auto()  # its process is killed


class CrashMoment(StrEnum):
    """Where in a round, or after the last one, the coordinator dies."""

    committing = auto()  # in the middle of writing the round to the journal
    committed = auto()  # when the round is on the disk
    signing = auto()  # before the release is signed and published
    pushing = auto()  # when the release is published, before any device has it


@dataclass(slots=True, kw_only=True)
class FaultsConfig:
    """How often, and when, something goes wrong.

    Probabilities are in [0, 1). They concern training messages: each trip of secure
    aggregation is one, drawn for itself; only introductions are spared.

    Attributes:
        drop: chance that a request does not reach its device.
        delay: chance that a reply arrives behind `delay_replies` later ones.
        delay_replies: in [1, 1000].
        duplicate: chance that a reply arrives twice.
        reorder_window: so many consecutive replies arrive in another order, in
            [1, 1000]; 1 keeps the order.
        truncate: chance that half of an array or of a byte string is cut off.
        bit_flip: chance that one bit of an array or of a byte string is turned.
        replay: chance that an earlier reply arrives before the device's own.
        nan: chance that a float32 value or a metric of a reply is no number.
        checksums: whether the simulated network refuses what was damaged on it, as a
            real one does; without, what receives a damaged reply has to cope with it.
        client_crash: chance that the device fails, before its work or after it.
        client_crash_kind: how.
        crash_coordinator_round: the round, from 1, in which the coordinator is killed;
            0 never.
        crash_coordinator_at: when; `signing` and `pushing` come after all rounds.
        disk_full_round: the round, from 1, that finds the disk full; 0 never.
    """

    drop: float = 0.0
    delay: float = 0.0
    delay_replies: int = 3
    duplicate: float = 0.0
    reorder_window: int = 1
    truncate: float = 0.0
    bit_flip: float = 0.0
    replay: float = 0.0
    nan: float = 0.0
    checksums: bool = True
    client_crash: float = 0.0
    client_crash_kind: CrashKind = CrashKind.error
    crash_coordinator_round: int = 0
    crash_coordinator_at: CrashMoment = CrashMoment.committing
    disk_full_round: int = 0

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            check_below_one(f"faults.{name}", getattr(self, name))
        check_within("faults.delay_replies", self.delay_replies, 1, _MAX_HELD)
        check_within("faults.reorder_window", self.reorder_window, 1, _MAX_HELD)
        check_at_least(
            "faults.crash_coordinator_round", self.crash_coordinator_round, 0
        )
        check_at_least("faults.disk_full_round", self.disk_full_round, 0)

    @property
    def damages_replies(self) -> bool:
        """Whether a reply may arrive with another content than it was sent with."""
        return max(self.truncate, self.bit_flip, self.nan) > 0.0

    @property
    def needs_checksums(self) -> bool:
        """Whether there is damage that the network is to find."""
        return self.checksums and self.damages_replies

    @property
    def touches_replies(self) -> bool:
        """Whether single replies must be seen: damaged, repeated or put elsewhere."""
        moved = max(self.delay, self.duplicate, self.replay) > 0.0
        return self.damages_replies or moved or self.reorder_window > 1
