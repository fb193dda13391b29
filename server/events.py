"""How a run tells whoever watches it what it does.

The ServerApp's signature is Flower's, so an observer cannot be an argument: it is set
for a block of code with `observing`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from server.journal import RoundRecord

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Whoever watches a run."""

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """Training begins, or goes on, at round `first_round` (from 0)."""

    def round_finished(self, record: RoundRecord) -> None:
        """A round was committed."""

    def stage_started(self, stage: str) -> None:
        """Something else that takes time began, such as "exporting"."""


class LogObserver:
    """Writes one line per round and stage to the log."""

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """Log where the run begins."""
        logger.info("rounds %d to %d", first_round + 1, num_rounds)

    def round_finished(self, record: RoundRecord) -> None:
        """Log the round."""
        logger.info(
            "round=%d asked=%d answered=%d failed=%d train_loss=%.4f loss=%.4f "
            "score=%.4f sparsity=%.2f seconds=%.2f clients_per_second=%.1f",
            record.round_index + 1,
            record.asked,
            record.answered,
            record.failed,
            record.train_loss,
            record.loss,
            record.score,
            record.sparsity,
            record.seconds,
            clients_per_second(record),
        )

    def stage_started(self, stage: str) -> None:
        """Log the stage."""
        logger.info("%s", stage)


def clients_per_second(record: RoundRecord) -> float:
    """Return how many answers a round took per second, its evaluation included."""
    return record.answered / record.seconds if record.seconds > 0.0 else 0.0


_OBSERVER: ContextVar[Observer] = ContextVar("observer")


def current_observer() -> Observer:
    """Return the observer of this run; without one, the log."""
    return _OBSERVER.get(LogObserver())


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let `observer` watch every run that is started in this block."""
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)
