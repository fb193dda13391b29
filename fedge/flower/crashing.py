"""Clients that crash: a mod that can be put around any ClientApp of a simulation.

    mod = crash_mod(config, seed=0, coordinator_pid=os.getpid())
    grid = LocalGrid(with_mod(client_app, mod), num_clients=20)

Which message meets a crash is decided by the same hash as the other faults. Half of the
crashes come before the client's work and half after it, when what it did is done and
only its reply is lost.
"""

import os
import signal

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from fedge.config.faults import CrashKind, FaultsConfig
from fedge.flower.batching import together, together_of
from fedge.flower.fates import Trip, draw, happens

_FAULT = "client_crash"


class InjectedCrashError(Exception):
    """A client crashed because its settings asked for it."""


def crash_mod(config: FaultsConfig, *, seed: int, coordinator_pid: int) -> Mod:
    """Return a mod that lets training messages crash their client.

    Args:
        config: how often (`client_crash`) and how (`client_crash_kind`).
        seed: of the run.
        coordinator_pid: the process that must not be killed: in there, where clients
            have no process of their own, a client that would be killed raises.
    """

    def mod(
        message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        trip = Trip.of(message)
        if not (trip.may_fail and happens(config.client_crash, seed, trip, _FAULT)):
            return call_next(message, context)
        if draw(seed, trip, f"{_FAULT} when") % 2:
            call_next(message, context)
        if (
            config.client_crash_kind is CrashKind.kill
            and os.getpid() != coordinator_pid
        ):
            os.kill(os.getpid(), signal.SIGKILL)
        raise InjectedCrashError("crashed by the fault layer (faults.client_crash)")

    return mod


def with_mod(app: ClientApp, mod: Mod) -> ClientApp:
    """Return an app that does what `app` does, with `mod` around all of it."""
    wrapped = _Wrapped(app, mod)
    stacked = together_of(app)
    if stacked is not None:
        together(wrapped)(stacked)
    return wrapped


class _Wrapped(ClientApp):
    """An app whose every message goes through a mod first."""

    def __init__(self, app: ClientApp, mod: Mod) -> None:
        super().__init__()
        self._app, self._mod = app, mod

    def __call__(self, message: Message, context: Context) -> Message:
        return self._mod(message, context, self._app)
