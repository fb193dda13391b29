"""Where the time of each round went: `profile.json`.

The profile is an observer between the run and whoever else watches it: what happens
between two events is a lap of its stopwatch. So the run itself knows nothing of it but
the blocks that it measures.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fedge.stopwatch import Lap, Stopwatch, measure, timed_by
from server.events import Observer
from server.journal import RoundRecord
from server.summary import write_atomically

PROFILE = "profile.json"
OTHER, IDLE = "other", "idle"


@dataclass(frozen=True, slots=True)
class Share:
    """Where the time of one round, or of one stage before or after them, went.

    Guarantee: the coordinator's seconds add up to the wall time.

    Attributes:
        name: "round", or the stage.
        round_index: from 0; -1 for a stage.
        clients: that answered.
        wall_seconds: from the end of what was before.
        coordinator: wall seconds by name; `other` is what nothing measured.
        workers: wall seconds by name, added up over the workers; `idle` is what
            they did not measure, so what they wait between two rounds too.
        coordinator_cpu_seconds, workers_cpu_seconds: CPU time.
        num_workers: processes that run clients; 0 if they are not ours.
    """

    name: str
    round_index: int
    clients: int
    wall_seconds: float
    coordinator: Mapping[str, float]
    workers: Mapping[str, float]
    coordinator_cpu_seconds: float
    workers_cpu_seconds: float
    num_workers: int

    @classmethod
    def of(
        cls, lap: Lap, name: str, *, round_index: int = -1, clients: int = 0
    ) -> "Share":
        """Return a lap's share."""
        wall = lap.wall_seconds
        return cls(
            name=name,
            round_index=round_index,
            clients=clients,
            wall_seconds=wall,
            coordinator=_with_rest(lap.here.seconds_by_name, wall, OTHER),
            workers=_with_rest(
                lap.workers.seconds_by_name, wall * lap.num_workers, IDLE
            ),
            coordinator_cpu_seconds=lap.here.cpu_seconds,
            workers_cpu_seconds=lap.workers.cpu_seconds,
            num_workers=lap.num_workers,
        )


def _with_rest(
    seconds_by_name: Mapping[str, float], total: float, rest: str
) -> dict[str, float]:
    # What a worker reports may have begun in the lap before: never less than nothing.
    left = max(0.0, total - sum(seconds_by_name.values()))
    return {**seconds_by_name, rest: left}


@dataclass(slots=True)
class Profile:
    """Passes on what it is told, and notes how long it took to get there.

    Attributes:
        observer: who really watches.
        watch: the stopwatch.
        shares: of all that is finished.
    """

    observer: Observer
    watch: Stopwatch
    shares: list[Share] = field(default_factory=list)
    _stage: str = "preparing"

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """End what was before the first round; pass on."""
        self._end_stage("finishing")
        self.observer.run_started(first_round=first_round, num_rounds=num_rounds)

    def round_finished(self, record: RoundRecord) -> None:
        """Pass on; end the round."""
        with measure("reporting"):
            self.observer.round_finished(record)
        place, clients = record.round_index, record.answered
        self.shares.append(
            Share.of(self.watch.take(), "round", round_index=place, clients=clients)
        )

    def stage_started(self, stage: str) -> None:
        """End what was before the stage; pass on."""
        self._end_stage(stage)
        self.observer.stage_started(stage)

    def close(self) -> None:
        """End the last stage."""
        self._end_stage("")

    def _end_stage(self, following: str) -> None:
        self.shares.append(Share.of(self.watch.take(), self._stage))
        self._stage = following


@contextmanager
def profiled(wanted: bool, folder: Path, observer: Observer) -> Iterator[Observer]:
    """Give the observer for a run that is profiled, if that is wanted.

    The profile is written into `folder` at the end, whatever ended the run. It holds
    the rounds of this process: a run that is resumed begins a new one.
    """
    if not wanted:
        yield observer
        return
    watch = Stopwatch()
    profile = Profile(observer, watch)
    try:
        with timed_by(watch):
            yield profile
    finally:
        profile.close()
        if folder.exists():
            text = json.dumps([asdict(share) for share in profile.shares], indent=1)
            write_atomically(folder / PROFILE, text.encode())


def read_profile(folder: Path) -> list[Share]:
    """Return the profile that a run has left in its folder; nothing without one."""
    path = folder / PROFILE
    if not path.exists():
        return []
    return [Share(**share) for share in json.loads(path.read_text(encoding="utf-8"))]
