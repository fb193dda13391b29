"""One simulated federation: set up the engine and its fleet, run the apps, report.

The ServerApp and the ClientApp are the ones that run on a real fleet; what is simulated
is the network and the devices (one folder each).
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid

from clients.app import app as client_app
from clients.learner import learner_of
from fedge.config import Batching, EngineKind, Experiment
from fedge.config.engine import ONE_PER_CORE
from fedge.config.experiment import to_json
from fedge.errors import FedgeError
from fedge.flower import LocalGrid
from server.app import JOURNAL
from server.app import app as server_app
from server.events import observing
from server.setup import Setup, prepare
from simulations.batching import choose_batching
from simulations.devices import Devices, make_devices
from simulations.faults import coordinator_faults, faulty_app, faulty_grid
from simulations.fleet import draw_fleet, fleet_grid
from simulations.progress import ProgressObserver
from simulations.report import write_report
from simulations.resume import store_settings, stored_settings

_MB = 10**6


def simulate_federation(experiment: Experiment, folder: Path) -> None:
    """Run an experiment, or go on with the one in `folder` if `run.resume` is set.

    Args:
        experiment: the settings; a resumed run uses those it was begun with.
        folder: where everything goes.

    Raises:
        FedgeError: the run failed; what was finished is kept.
        KeyboardInterrupt: the user stopped it; it can be resumed.
    """
    import torch

    folder = folder.resolve()
    if experiment.run.resume:
        experiment = stored_settings(folder)
    torch.set_num_threads(experiment.engine.threads)
    setup = _settled(prepare(experiment))
    folder.mkdir(parents=True, exist_ok=True)
    store_settings(setup.experiment, folder)
    _link_latest(folder)
    try:
        _run(setup, make_devices(setup, folder), folder)
    except (FedgeError, KeyboardInterrupt):
        if (folder / JOURNAL).exists():
            print(
                f"\nResume with: python -m simulations.run run.resume={folder}",
                file=sys.stderr,
            )
        raise
    write_report(setup, folder)
    draw_fleet(folder)


def _settled(setup: Setup) -> Setup:
    """Replace what is left to this machine, or to this moment, by what it is."""
    experiment = setup.experiment
    engine = replace(experiment.engine, batching=choose_batching(setup))
    fleet = experiment.fleet
    if fleet.path:  # `outputs/latest` will be another run in a moment
        fleet = replace(fleet, path=str(Path(fleet.path).resolve()))
    return replace(setup, experiment=replace(experiment, engine=engine, fleet=fleet))


def _link_latest(folder: Path) -> None:
    """Let `outputs/latest` name this run's folder (a sweep's: its last started run)."""
    link = Path("outputs/latest").absolute()
    link.parent.mkdir(exist_ok=True)
    temporary = link.with_name(f".latest-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(folder, link.parent))
    temporary.replace(link)


def _run(setup: Setup, devices: Devices, folder: Path) -> None:
    experiment = setup.experiment
    faults, seed = experiment.faults, experiment.run.seed
    if experiment.engine.kind is EngineKind.flower:
        from simulations.flower_engine import run_on_flower

        with ProgressObserver() as observer:
            run_on_flower(setup, devices, folder, observer)
        return
    # The grid first: its workers must not inherit the progress bar's thread.
    with (
        _base_grid(setup, devices) as base,
        fleet_grid(base, setup, folder) as grid,
        ProgressObserver() as shown,
        coordinator_faults(faults, folder, shown) as told,
        observing(told),
    ):
        if isinstance(base, LocalGrid):
            base.on_progress = shown.clients_answered
        context = Context(
            run_id=base.run.run_id,
            node_id=SUPERLINK_NODE_ID,
            node_config={},
            state=RecordDict(),
            run_config={"settings": to_json(experiment), "run-dir": str(folder)},
        )
        server_app(faulty_grid(grid, faults, seed=seed), context)


@contextmanager
def _base_grid(setup: Setup, devices: Devices) -> Iterator[Grid]:
    """Give the engine's grid, ready to run; its workers end with the block."""
    experiment = setup.experiment
    engine = experiment.engine
    if engine.kind is EngineKind.ray:
        from simulations.ray_engine import ray_grid

        with ray_grid(setup, devices) as grid:
            yield grid
        return
    if engine.workers:  # what all workers need is loaded once, before they are forked
        root = Path(experiment.data.root) if experiment.data.root else None
        learner_of(setup.task, root, tuple(experiment.run.allow)).examples(0)
    app = faulty_app(client_app, experiment.faults, seed=experiment.run.seed)
    with LocalGrid(
        app,
        num_clients=setup.num_devices,
        workers=None if engine.workers == ONE_PER_CORE else engine.workers,
        threads=engine.threads,
        client_seconds=engine.client_seconds,
        memory_bytes=engine.memory_mb * _MB,
        batching=engine.batching is Batching.always,
        node_config=devices.node_config,
    ) as local:
        yield local
