"""The simulated devices: what their owners would set up, made when one is first asked.

A device is a folder: the keys that protect its updates, what it trusts, its two model
slots. A fleet of a million costs nothing until some of them are asked.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedge.config import Backend, Experiment, SecAggMode
from fedge.enrolment.folders import (
    ENROLMENT_KEY,
    create_key,
    enroll_device,
    machine_has_fast_aes,
)
from fedge.fleet import Fleet, make_fleet
from fedge.flower.local_grid import UserConfig
from fedge.release.install import trust_store
from fedge.release.keys import KeyRing
from server.app import ENROLMENT
from server.publish import open_repository
from server.setup import Setup

_SECAGG, _TRUST = "secagg", "trust"
_ENROLMENT_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Devices:
    """All devices of a run.

    Attributes:
        experiment: the run's settings.
        folder: of the run; a device's is in `devices/`.
        root: signed root metadata that devices trust; empty without releases.
        not_after: end of the devices' certificates, seconds since 1970.
        fleet: what the devices are; None if nobody needs to know.
    """

    experiment: Experiment
    folder: Path
    root: bytes
    not_after: int
    fleet: Fleet | None = None

    def node_config(self, index: int) -> UserConfig:
        """Set a device up, unless it is, and return its node config."""
        device = self.folder / "devices" / f"{index:04d}"
        if self.root and not trust_store(device).is_provisioned:
            trust_store(device).provision(self.root)
        if self.experiment.secagg.mode is not SecAggMode.off:
            make_aside(device / _SECAGG, partial(self._enroll, index))
        return {
            "data-root": self.experiment.data.root,
            "device-dir": str(device),
            "allow": ",".join(self.experiment.run.allow),
            "train-backend": str(self._backend(index)),
            **self._protection(device),
        }

    def _backend(self, index: int) -> Backend:
        if self.fleet is None or self.fleet.device(index).has_torch:
            return Backend.torch
        return Backend.onnx

    def _protection(self, device: Path) -> UserConfig:
        """Return what an owner would write: never less than the run promises."""
        secagg = self.experiment.secagg
        if secagg.mode is SecAggMode.off:
            return {"secagg": "optional"}
        return {
            "secagg": "required",
            "secagg-dir": str(device / _SECAGG),
            "secagg-min-cohort": secagg.min_cohort,
            "secagg-malicious": secagg.mode is SecAggMode.malicious,
            "secagg-max-weight": secagg.max_weight,
        }

    def _enroll(self, index: int, folder: Path) -> None:
        enroll_device(
            self.folder / ENROLMENT / ENROLMENT_KEY,
            folder,
            uid=index + 1,
            fast_aes=machine_has_fast_aes(),
            not_after=self.not_after,
        )


def make_devices(setup: Setup, folder: Path) -> Devices:
    """Do what an operator does once, such as making keys, and return the devices."""
    experiment, root = setup.experiment, b""
    if experiment.release.enabled:
        release = experiment.release
        make_keys = partial(
            KeyRing.create,
            root_keys=release.root_keys,
            root_threshold=release.root_threshold,
        )
        make_aside(folder / "keys", make_keys)
        root = open_repository(folder, setup).trusted_root()
    if experiment.secagg.mode is not SecAggMode.off:
        make_aside(folder / ENROLMENT, create_key)
    not_after = int(time.time()) + _ENROLMENT_SECONDS
    fleet = fleet_of(experiment, setup.num_devices)
    return Devices(experiment, folder, root, not_after, fleet)


def fleet_of(experiment: Experiment, num_devices: int) -> Fleet | None:
    """Return what the devices are, if it matters to how they train."""
    if experiment.train.backend is not Backend.onnx:
        return None
    seed = experiment.run.seed
    return make_fleet(experiment.fleet, num_devices=num_devices, seed=seed)


def make_aside(folder: Path, make: Callable[[Path], object]) -> None:
    """Make a folder of keys whole or not at all: half of them are of no use."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    make(unfinished)
    unfinished.rename(folder)
