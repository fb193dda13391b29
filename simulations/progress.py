"""A progress bar on the terminal: rounds, score, what goes on, and when it will end."""

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from server.events import LogObserver
from server.journal import RoundRecord


class ProgressObserver:
    """Shows a run on the terminal and writes its lines to the log as well."""

    def __init__(self) -> None:
        self._log = LogObserver()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._task = self._progress.add_task("training", total=None, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """Set the bar's length and where it begins."""
        self._log.run_started(first_round=first_round, num_rounds=num_rounds)
        self._progress.update(self._task, total=num_rounds, completed=first_round)

    def round_finished(self, record: RoundRecord) -> None:
        """Move the bar on by one round."""
        self._log.round_finished(record)
        note = f"loss {record.train_loss:.3f}"
        if record.score == record.score:
            note += f"  score {record.score:.4f}"
        self._progress.update(self._task, advance=1, note=note)

    def stage_started(self, stage: str) -> None:
        """Say what goes on after the training."""
        self._log.stage_started(stage)
        self._progress.update(self._task, description=stage)
