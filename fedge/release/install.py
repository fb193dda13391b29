"""The whole way of a release onto a device: verify, stage, try out, switch.

device/trust/    what this device trusts and has accepted
device/slots/    the two slots
device/lock      held by whoever installs or loads

from fedge.release.install import install, load_installed
report = install(folder, bundle)             # folder was provisioned before
outputs = load_installed(folder).predict(raw_examples)
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from pathlib import Path

from fedge.errors import DataError, HealthCheckError
from fedge.release.bundle import ReleaseBundle
from fedge.release.disk import Disk
from fedge.release.health import DEFAULT_TIMEOUT_SECONDS, HealthReport, check_health
from fedge.release.passport import Passport
from fedge.release.slots import Installed, Slots
from fedge.release.trust import DEFAULT_TARGET_PATH, TrustStore, VerifiedRelease
from fedge.runtime.predictor import OnnxPredictor


class Outcome(StrEnum):
    """How an installation ended."""

    installed = auto()
    already_installed = auto()
    rolled_back = auto()  # genuine, but it does not work here; the old one still runs


@dataclass(frozen=True, slots=True)
class InstallReport:
    """What an installation did.

    Attributes:
        version: the release that was offered.
        outcome: how it ended.
        health: what the health check measured; None if it failed or was not needed.
        seconds: how long everything took.
        reason: why the release was rolled back; empty otherwise.
    """

    version: int
    outcome: Outcome
    health: HealthReport | None
    seconds: float
    reason: str = ""


def trust_store(device_folder: Path, *, disk: Disk | None = None) -> TrustStore:
    """Return what this device trusts; `.provision(root)` makes it ready."""
    return TrustStore(device_folder / "trust", disk=disk)


def install(
    device_folder: Path,
    bundle: ReleaseBundle,
    *,
    target_path: str = DEFAULT_TARGET_PATH,
    now: datetime | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    disk: Disk | None = None,
) -> InstallReport:
    """Verify a bundle, try its model out, and let it run from now on.

    Guarantee: at every moment, also after a crash, the model that runs is the old one
    or a verified new one that passed the health check.

    Args:
        device_folder: of this device, provisioned.
        bundle: from anywhere.
        target_path: which target this device runs.
        now: the time, with time zone; None asks the clock.
        timeout_seconds: longest time of the health check.
        disk: how to write.

    Raises:
        VerificationError: do not trust this bundle; see `TrustStore.verify`.
        MisuseError: the device was not provisioned.
        DataError: the device's own records are damaged.
        OSError: the disk is full or fails; what ran goes on running.
    """
    started = time.monotonic()
    with _exclusive(device_folder):
        slots = Slots(device_folder / "slots", disk=disk)
        slots.recover()
        store = trust_store(device_folder, disk=disk)
        release = store.verify(bundle, target_path=target_path, now=now)
        running, health, reason = _whole(slots), None, ""
        if running is not None and running.passport == release.passport:
            outcome = Outcome.already_installed
        else:
            try:
                health = _switch(slots, release, timeout_seconds)
                outcome = Outcome.installed
            except HealthCheckError as exc:
                outcome, reason = Outcome.rolled_back, str(exc)
    seconds = time.monotonic() - started
    return InstallReport(release.passport.version, outcome, health, seconds, reason)


def _switch(
    slots: Slots, release: VerifiedRelease, timeout_seconds: float
) -> HealthReport:
    """Let the release run if it is healthy; else raise HealthCheckError."""
    staged = slots.stage(release)
    health = check_health(staged, release.passport, timeout_seconds=timeout_seconds)
    slots.activate(staged.parent.name)
    slots.commit()
    return health


def installed_model(device_folder: Path) -> tuple[Path, Passport] | None:
    """Return the model that runs and its passport, or None before the first one.

    A switch that a crash left uncommitted is undone first.

    Raises:
        DataError: the model or its passport is damaged; install again.
    """
    with _exclusive(device_folder):
        installed = _recovered(device_folder)
    return None if installed is None else (installed.path, installed.passport)


def load_installed(device_folder: Path, *, threads: int = 1) -> OnnxPredictor:
    """Return the model that runs, ready to predict from raw values.

    Raises:
        DataError: no model is installed, or it is damaged; install a release.
    """
    with _exclusive(device_folder):
        installed = _recovered(device_folder)
        if installed is None:
            raise DataError(f"{device_folder}: no model is installed yet")
        normalization = installed.passport.normalization
        return OnnxPredictor(installed.path, normalization, threads=threads)


def _recovered(device_folder: Path) -> Installed | None:
    slots = Slots(device_folder / "slots")
    slots.recover()
    return slots.current()


def _whole(slots: Slots) -> Installed | None:
    """Return what runs, or None if there is nothing or it needs to be replaced."""
    try:
        return slots.current()
    except DataError:
        return None


@contextmanager
def _exclusive(device_folder: Path) -> Iterator[None]:
    """Let one process at a time in; the lock ends with its process."""
    device_folder.mkdir(parents=True, exist_ok=True)
    with (device_folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
