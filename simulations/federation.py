"""One simulated federation: provision the devices, run the apps, report.

The ServerApp and the ClientApp are the ones that run on a real fleet; what is simulated
is the network and the devices' disks (one folder each).
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID

from clients.app import app as client_app
from fedge.config import Experiment, SecAggMode
from fedge.config.experiment import to_json
from fedge.enrolment.folders import (
    ENROLMENT_KEY,
    create_key,
    enroll_device,
    machine_has_fast_aes,
)
from fedge.errors import FedgeError
from fedge.flower import LocalGrid
from fedge.flower.local_grid import UserConfig
from fedge.release.install import trust_store
from fedge.release.keys import KeyRing
from server.app import ENROLMENT, JOURNAL
from server.app import app as server_app
from server.events import observing
from server.publish import open_repository
from server.setup import Setup, prepare
from simulations.progress import ProgressObserver
from simulations.report import write_report
from simulations.resume import store_settings, stored_settings

_SECAGG = "secagg"
_ENROLMENT_SECONDS = 365 * 24 * 3600


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
    setup = prepare(experiment)
    folder.mkdir(parents=True, exist_ok=True)
    store_settings(experiment, folder)
    _link_latest(folder)
    if experiment.release.enabled:
        _provision(setup, folder)
    if experiment.secagg.mode is not SecAggMode.off:
        _enroll(setup, folder)
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
    _make_aside(
        folder / "keys",
        partial(
            KeyRing.create,
            root_keys=config.root_keys,
            root_threshold=config.root_threshold,
        ),
    )
    root = open_repository(folder, setup).trusted_root()
    for index in range(setup.num_devices):
        trust_store(_device_folder(folder, index)).provision(root)


def _protection(experiment: Experiment, device: Path) -> UserConfig:
    """Return what a device's owner would write: never less than the run promises."""
    secagg = experiment.secagg
    if secagg.mode is SecAggMode.off:
        return {"secagg": "optional"}
    return {
        "secagg": "required",
        "secagg-dir": str(device / _SECAGG),
        "secagg-min-cohort": secagg.min_cohort,
        "secagg-malicious": secagg.mode is SecAggMode.malicious,
        "secagg-max-weight": secagg.max_weight,
    }


def _enroll(setup: Setup, folder: Path) -> None:
    """Make an enrolment key, and certified keys for every device that has none."""
    authority = folder / ENROLMENT
    _make_aside(authority, create_key)
    expiry = int(time.time()) + _ENROLMENT_SECONDS
    for index in range(setup.num_devices):
        _make_aside(
            _device_folder(folder, index) / _SECAGG,
            partial(
                _enroll_one, authority / ENROLMENT_KEY, uid=index + 1, not_after=expiry
            ),
        )


def _enroll_one(key: Path, folder: Path, *, uid: int, not_after: int) -> None:
    fast_aes = machine_has_fast_aes()
    enroll_device(key, folder, uid=uid, fast_aes=fast_aes, not_after=not_after)


def _make_aside(folder: Path, make: Callable[[Path], object]) -> None:
    """Make a folder of keys whole or not at all: half of them are of no use."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    make(unfinished)
    unfinished.rename(folder)


def _device_folder(folder: Path, index: int) -> Path:
    return folder / "devices" / f"{index:04d}"


def _run_apps(setup: Setup, folder: Path) -> None:
    experiment = setup.experiment

    def node_config(index: int) -> UserConfig:
        return {
            "data-root": experiment.data.root,
            "device-dir": str(_device_folder(folder, index)),
            "allow": ",".join(experiment.run.allow),
            **_protection(experiment, _device_folder(folder, index)),
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
