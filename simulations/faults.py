"""Puts the faults of the settings into a simulation.

The network's and the devices' faults are a layer and two mods. Those of the coordinator
itself are real, too. The process dies by a signal that nobody can catch. A full disk is
a write that the kernel refuses: `RLIMIT_FSIZE` needs no rights and no file system of
its own, and stops every writer, SQLite's C code included, which a patched `open` would
not. (The error is EFBIG where a full disk says ENOSPC; SQLite treats both as a failed
write, and so do we.) With the signal that comes with it left deadly, the same limit
kills the process in the middle of writing a round.

Each fault strikes once in the life of a run: its file in the run's folder says that it
did, so that a resumed run goes on.
"""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedge.config.faults import CrashMoment, FaultsConfig
from fedge.flower.checksums import Checksums, checksum_mod
from fedge.flower.crashing import crash_mod, with_mod
from fedge.flower.faults import Faults
from server.events import Observer
from server.journal import RoundRecord
from server.summary import write_atomically

# A commit changes at least two pages of 4 KiB, each in a frame of SQLite's log.
_FULL_BYTES = 8192

_STAGE_BY_MOMENT = {CrashMoment.signing: "signing", CrashMoment.pushing: "pushing"}


def faulty_app(app: ClientApp, config: FaultsConfig, *, seed: int) -> ClientApp:
    """Return the app as unreliable devices run it; to be made in the main process."""
    if config.client_crash > 0.0:
        app = with_mod(app, crash_mod(config, seed=seed, coordinator_pid=os.getpid()))
    return with_mod(app, checksum_mod) if config.needs_checksums else app


def faulty_grid(grid: Grid, config: FaultsConfig, *, seed: int) -> Grid:
    """Return the grid over an unreliable network.

    Args:
        grid: the base grid; its clients run a `faulty_app`.
        config: what goes wrong.
        seed: of the run.
    """
    if config.drop > 0.0 or config.touches_replies:
        grid = Faults(grid, config=config, seed=seed)
    return Checksums(grid) if config.needs_checksums else grid


@contextmanager
def coordinator_faults(
    config: FaultsConfig, folder: Path, observer: Observer
) -> Iterator[Observer]:
    """Let the run that is watched in this block meet the coordinator's faults.

    Args:
        config: which.
        folder: of the run; must exist.
        observer: who really watches.

    Yields:
        The observer to give to the run. A full disk is empty again after the block.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield _Saboteur(config, folder, observer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@dataclass(frozen=True, slots=True)
class _Saboteur:
    """Passes on what it is told, and strikes when it is time."""

    config: FaultsConfig
    folder: Path
    observer: Observer

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """Pass on; prepare what the first round is to meet."""
        self.observer.run_started(first_round=first_round, num_rounds=num_rounds)
        self._before_round(first_round + 1)

    def round_finished(self, record: RoundRecord) -> None:
        """Pass on; prepare what the next round is to meet."""
        number = record.round_index + 1
        if number == self.config.crash_coordinator_round and self._at(
            CrashMoment.committed
        ):
            self._once("committed", _die)
        self.observer.round_finished(record)
        self._before_round(number + 1)

    def stage_started(self, stage: str) -> None:
        """Pass on, unless the coordinator dies here."""
        at = self.config.crash_coordinator_at
        if self.config.crash_coordinator_round and stage.startswith(
            _STAGE_BY_MOMENT.get(at, "\0")
        ):
            self._once(str(at), _die)
        self.observer.stage_started(stage)

    def _before_round(self, number: int) -> None:
        """Prepare the faults of a round, counted from 1."""
        if number == self.config.disk_full_round:
            self._once("disk_full", _fill_disk)
        if number == self.config.crash_coordinator_round and self._at(
            CrashMoment.committing
        ):
            self._once("committing", _die_at_next_large_write)

    def _at(self, moment: CrashMoment) -> bool:
        return self.config.crash_coordinator_at is moment

    def _once(self, name: str, strike: Callable[[], None]) -> None:
        """Strike, unless this run has been struck in this way before."""
        mark = self.folder / f".fault-{name}"
        if not mark.exists():
            write_atomically(mark, b"")
            strike()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill_disk() -> None:
    # Python ignores the signal, so that the write fails with an error instead.
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FULL_BYTES, hard))


def _die_at_next_large_write() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # such a death leaves a core file
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    _fill_disk()
