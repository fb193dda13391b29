"""Clients that compute for too long, and workers that die: what becomes of the work."""

import os
import signal
import time
from collections.abc import Iterable, Sequence

from fedge.errors import TransportError
from fedge.flower.client_runner import TOGETHER, failure
from fedge.flower.job import Job
from fedge.flower.link import Link

_MAX_UNEXPLAINED_DEATHS = 3


def end_slow_clients(links: Iterable[Link], client_seconds: float) -> None:
    """Kill the workers whose client has computed for longer than it may.

    Args:
        links: to all workers.
        client_seconds: the limit for one client; those that are computed together have
            so much each.
    """
    now = time.monotonic()
    for link in links:
        what, since = link.status()
        running = link.running
        if what == TOGETHER:
            allowed = client_seconds * len(running)
        elif what in running:
            allowed = client_seconds
        else:
            continue
        if now - since > allowed:
            link.ended_because = (
                f"it computed for more than {client_seconds:g} s (the limit for a "
                f"client)"
            )
            os.kill(link.pid, signal.SIGKILL)


def account_for_death(job: Job, lost: Sequence[int], what: int, reason: str) -> None:
    """Answer for the client that a worker died of; have the others computed again.

    Args:
        job: that the worker worked on.
        lost: clients that it was given and had not handed over.
        what: the one that it computed, `TOGETHER`, or no client.
        reason: why it ended.

    Raises:
        TransportError: workers die without a client being the reason.
    """
    if what == TOGETHER:  # each for itself, to see whose fault it was
        job.schedule.give_back(lost, alone=True)
        return
    if what in lost:
        job.answer(what, failure(job.messages[what], reason))
        lost = [number for number in lost if number != what]
    else:
        job.unexplained_deaths += 1
        if job.unexplained_deaths > _MAX_UNEXPLAINED_DEATHS:
            raise TransportError(
                f"workers ended {job.unexplained_deaths} times outside of any "
                f"client; the last time {reason}; is there enough memory?"
            )
    job.schedule.give_back(lost)
