"""One simulated federation: provision the devices, run the apps, report.

The ServerApp and the ClientApp are the ones that run on a real fleet; what is simulated
is the network and the devices' disks (one folder each).
"""

import json
import os
import shutil
import sys
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID

from clients.app import app as client_app
from fedge.config import Experiment
from fedge.config.experiment import from_json, to_json
from fedge.errors import ConfigError, FedgeError
from fedge.flower import LocalGrid
from fedge.flower.local_grid import UserConfig
from fedge.release.install import trust_store
from fedge.release.keys import KeyRing
from server.app import JOURNAL
from server.app import app as server_app
from server.events import observing
from server.publish import open_repository
from server.setup import Setup, prepare
from server.summary import write_atomically
from simulations.progress import ProgressObserver
from simulations.report import write_report

_SETTINGS = "experiment.json"


def simulate_federation(experiment: Experiment, folder: Path) -> None:
    """Run an experiment, or go on with the one that `run.resume` names.

    Args:
        experiment: the settings.
        folder: where everything goes, unless an earlier run is resumed.

    Raises:
        FedgeError: the run failed; what was finished is kept.
        KeyboardInterrupt: the user stopped it; it can be resumed.
    """
    import torch

    experiment, folder = _resumed(experiment, folder)
    torch.set_num_threads(experiment.engine.threads)
    setup = prepare(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _SETTINGS, to_json(experiment).encode())
    _link_latest(folder)
    if experiment.release.enabled:
        _provision(setup, folder)
    try:
        _run_apps(setup, folder)
    except (FedgeError, KeyboardInterrupt):
        if (folder / JOURNAL).exists():
            print(
                f"\nResume with: python -m simulations.run run.resume={folder}",
                file=sys.stderr,
            )
        raise
    write_report(setup, folder)


def _resumed(experiment: Experiment, folder: Path) -> tuple[Experiment, Path]:
    """Return the settings and the folder of the run to continue, if there is one."""
    if not experiment.run.resume:
        return experiment, folder.resolve()
    earlier = Path(experiment.run.resume).resolve()
    try:
        text = (earlier / _SETTINGS).read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(
            f"run.resume: {experiment.run.resume} holds no run ({_SETTINGS} is missing)"
        ) from exc
    stored = from_json(Experiment, text)
    _check_no_changes(experiment)
    return stored, earlier


def _check_no_changes(experiment: Experiment) -> None:
    """Refuse settings beside run.resume: a run goes on with its own."""
    given = json.loads(to_json(experiment))
    default = json.loads(to_json(_default_of_command_line()))
    given["run"]["resume"] = default["run"]["resume"] = ""
    if given != default:
        raise ConfigError(
            "run.resume: a run goes on with its own settings; leave out the others"
        )


def _default_of_command_line() -> Experiment:
    from hydra import compose

    from server.settings import ROOT_CONFIG, experiment_of

    return experiment_of(compose(ROOT_CONFIG))


def _link_latest(folder: Path) -> None:
    """Let `outputs/latest` name this run's folder (a sweep's: its last started run)."""
    link = Path("outputs/latest").absolute()
    link.parent.mkdir(exist_ok=True)
    temporary = link.with_name(f".latest-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(folder, link.parent))
    temporary.replace(link)


def _provision(setup: Setup, folder: Path) -> None:
    """Do what an operator does once: make keys, give every device the trusted root."""
    config = setup.experiment.release
    keys, unfinished = folder / "keys", folder / "keys.new"
    if not keys.exists():
        # Killed half-way, a set of keys would be of no use: make it aside, then move.
        shutil.rmtree(unfinished, ignore_errors=True)
        KeyRing.create(
            unfinished,
            root_keys=config.root_keys,
            root_threshold=config.root_threshold,
        )
        unfinished.rename(keys)
    root = open_repository(folder, setup).trusted_root()
    for index in range(setup.num_devices):
        trust_store(_device_folder(folder, index)).provision(root)


def _device_folder(folder: Path, index: int) -> Path:
    return folder / "devices" / f"{index:04d}"


def _run_apps(setup: Setup, folder: Path) -> None:
    experiment = setup.experiment

    def node_config(index: int) -> UserConfig:
        return {
            "data-root": experiment.data.root,
            "device-dir": str(_device_folder(folder, index)),
            "allow": ",".join(experiment.run.allow),
        }

    grid = LocalGrid(client_app, num_clients=setup.num_devices, node_config=node_config)
    context = Context(
        run_id=grid.run.run_id,
        node_id=SUPERLINK_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config={"settings": to_json(experiment), "run-dir": str(folder)},
    )
    with ProgressObserver() as observer, observing(observer):
        server_app(grid, context)
