"""The simulated devices on a Ray cluster (`engine=ray`).

Each node makes the devices for itself, from the settings and the run's folder. That
folder holds the devices' own folders (their keys, what they trust, their models), and
data may be there too; so all nodes must see it, and `data.root`, under the same path,
on a file system that they share.
"""

import json
from contextlib import AbstractContextManager
from pathlib import Path

from flwr.serverapp import Grid

from clients.app import app as client_app
from clients.learner import learner_of
from fedge.config import Batching, Experiment
from fedge.config.engine import ONE_PER_CORE
from fedge.config.experiment import from_json, to_json
from fedge.errors import ConfigError
from fedge.flower.client_runner import Clients
from fedge.flower.ray_grid import RayGrid
from server.setup import Setup, prepare
from simulations.devices import Devices, fleet_of
from simulations.faults import faulty_app

_MB = 1 << 20


def ray_grid(setup: Setup, devices: Devices) -> AbstractContextManager[Grid]:
    """Return a grid over the run's devices; its actors end with the block.

    Args:
        setup: the run.
        devices: its devices; their folder is on a file system of all nodes.

    Raises:
        ConfigError: the engine's settings are wrong, Ray is not installed, or a node
            cannot make the devices.
        TransportError: there is no cluster at `engine.ray_address`, or no room on it.
    """
    engine = setup.experiment.engine
    if engine.workers == 0:
        raise ConfigError(
            "engine.workers: 0 computes in the main process, which engine=ray cannot; "
            "use -1 (one per CPU of the cluster) or at least 1"
        )
    return RayGrid(
        clients=f"{__name__}:clients_of_run",
        arguments=_to_text(setup, devices),
        num_clients=setup.num_devices,
        address=engine.ray_address,
        workers=None if engine.workers == ONE_PER_CORE else engine.workers,
        threads=engine.threads,
        client_seconds=engine.client_seconds,
        memory_bytes=engine.memory_mb * _MB,
        batching=engine.batching is Batching.always,
        gpus_per_worker=engine.gpus_per_worker,
    )


def clients_of_run(arguments: str) -> Clients:
    """Return the clients of a run, on whichever node this is.

    Args:
        arguments: what `ray_grid` wrote.

    Raises:
        ConfigError: the settings do not fit together here.
        DataError: the data is not there.
    """
    import torch

    told = json.loads(arguments)
    experiment = from_json(Experiment, told["settings"])
    folder = Path(told["folder"])
    if not folder.is_dir():
        raise ConfigError(
            f"run folder: {folder} is not there; all nodes of a Ray cluster must see "
            f"it, on a file system that they share"
        )
    torch.set_num_threads(experiment.engine.threads)
    # What all workers need is loaded once, before they are forked.
    root = Path(experiment.data.root) if experiment.data.root else None
    task = prepare(experiment).task
    learner_of(task, root, tuple(experiment.run.allow)).examples(0)
    devices = Devices(
        experiment,
        folder,
        bytes.fromhex(told["root"]),
        told["not_after"],
        fleet_of(experiment, told["num_devices"]),
    )
    app = faulty_app(client_app, experiment.faults, seed=experiment.run.seed)
    return Clients(app, told["num_devices"], node_config=devices.node_config)


def _to_text(setup: Setup, devices: Devices) -> str:
    return json.dumps(
        {
            "settings": to_json(setup.experiment),
            "folder": str(devices.folder),
            "root": devices.root.hex(),
            "not_after": devices.not_after,
            "num_devices": setup.num_devices,
        }
    )
