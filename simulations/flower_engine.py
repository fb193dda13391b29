"""A whole run in Flower's own simulation runtime (`engine=flower`).

The same apps, with Flower's state, polls and Ray actors between them: slow, but it is
the reference that the other engines are compared with. Nodes have random ids there. The
runtime takes objects (Ray pickles them), so it runs on this machine's own Ray. What
needs the coordinator's process for itself, or virtual time, is left to other engines.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid, ServerApp

from clients.app import app as client_app
from fedge.config import Experiment
from fedge.config.engine import ONE_PER_CORE, EngineConfig
from fedge.config.experiment import to_json
from fedge.errors import ConfigError, TransportError
from fedge.flower.crashing import with_mod
from fedge.flower.ray_cluster import import_ray
from server.app import app as server_app
from server.events import Observer, observing
from server.setup import Setup
from simulations.devices import Devices
from simulations.faults import faulty_app, faulty_grid


def run_on_flower(
    setup: Setup, devices: Devices, folder: Path, observer: Observer
) -> None:
    """Run an experiment in Flower's simulation runtime; leave everything in `folder`.

    Args:
        setup: the run.
        devices: its devices.
        folder: of the run.
        observer: who watches it; called from another thread.

    Raises:
        ConfigError: the settings ask for what only other engines can, or Ray is not
            installed.
        TransportError: Flower's runtime failed.
        Exception: whatever the ServerApp raises.
    """
    experiment = setup.experiment
    _check_supported(experiment)
    import_ray()
    failures: list[BaseException] = []
    app = _server_app(setup, folder, observer, failures)
    clients = with_mod(
        faulty_app(client_app, experiment.faults, seed=experiment.run.seed),
        partial(_at_home, devices),
    )
    with _quiet_runtime(experiment.engine.threads):
        from flwr.simulation import run_simulation

        try:
            run_simulation(
                app,
                clients,
                setup.num_devices,
                backend_config=_backend(experiment.engine),  # type: ignore[arg-type]
            )
        except RuntimeError as exc:
            raise TransportError(f"Flower's simulation runtime: {exc}") from exc
    for failure in failures:
        raise failure


def _server_app(
    setup: Setup, folder: Path, observer: Observer, failures: list[BaseException]
) -> ServerApp:
    """Return the ServerApp with its run config; its error is noted, not raised.

    Flower's runtime would wrap an error into its own, and tell of it at length.
    """
    experiment, app = setup.experiment, ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        context.run_config = {"settings": to_json(experiment), "run-dir": str(folder)}
        try:
            with observing(observer):
                seed = experiment.run.seed
                server_app(faulty_grid(grid, experiment.faults, seed=seed), context)
        except BaseException as exc:
            failures.append(exc)

    return app


def _at_home(
    devices: Devices, message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """Give a client the node config that its device's owner would have written."""
    place = int(context.node_config["partition-id"])
    context.node_config = {**context.node_config, **devices.node_config(place)}
    return call_next(message, context)


def _backend(engine: EngineConfig) -> dict[str, dict[str, object]]:
    """Return Flower's settings of Ray: an actor for each worker."""
    workers = engine.workers
    if workers == ONE_PER_CORE:
        workers = len(os.sched_getaffinity(0))
    return {
        "init_args": {
            "address": "local",
            "num_cpus": workers,
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.WARNING,
        },
        "client_resources": {"num_cpus": 1, "num_gpus": engine.gpus_per_worker},
    }


def _check_supported(experiment: Experiment) -> None:
    """Refuse what Flower's runtime cannot do."""
    engine, faults = experiment.engine, experiment.faults
    for name, value in {
        "engine.workers": engine.workers == 0,
        "engine.client_seconds": engine.client_seconds,
        "engine.memory_mb": engine.memory_mb,
        "engine.ray_address": engine.ray_address,
        "faults.crash_coordinator_round": faults.crash_coordinator_round,
        "faults.disk_full_round": faults.disk_full_round,
        "fleet": experiment.fleet.is_virtual,
    }.items():
        if value:
            raise ConfigError(
                f"{name}: cannot be had in Flower's runtime (engine=flower); leave it "
                f"at its default, or use engine=local or engine=ray"
            )


@contextmanager
def _quiet_runtime(threads: int) -> Iterator[None]:
    """Prepare the environment and the log for Flower's runtime, for a block.

    It warns that this way to start it will go; the other way is a command line (see
    `simulations.benchmarks.flower_runtime`).
    """
    found, log = dict(os.environ), logging.getLogger("flwr")
    level = log.level
    os.environ |= {
        "OMP_NUM_THREADS": str(threads),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
        os.environ.clear()
        os.environ.update(found)
