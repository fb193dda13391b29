"""Two slots and one link: the model that runs is the old one or the new one, whole.

    slots/a/model.onnx  passport.json
    slots/b/model.onnx  passport.json
    slots/current -> a
    slots/switch.json          only while a switch is not committed

A new model is written into the slot that does not run. Activating it first records
where to go back to, then replaces the link; committing forgets the way back. Whoever
starts after a power cut calls `recover`: a switch that was not committed is undone.
After a commit there is no way back (only a newer release): an attacker who can make a
device fail must not thereby bring back an old model.

What is not in here: deciding whether a model deserves a slot (trust, health).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from fedge.errors import DataError, FedgeError, MisuseError
from fedge.release.artifact import digest
from fedge.release.disk import Disk
from fedge.release.passport import Passport
from fedge.release.trust import VerifiedRelease

SLOTS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Installed:
    """The model that runs.

    Attributes:
        slot: "a" or "b".
        path: the ONNX file.
        passport: what was signed with it.
    """

    slot: str
    path: Path
    passport: Passport


class Slots:
    """The two slots of one device; used by one process at a time.

    Guarantee: after a crash at any time and `recover`, `current()` is what it was
    before the switch or what it was to become, whole; once `commit` has returned it is
    the new one.

    Args:
        folder: created when it is first needed.
        disk: how to write.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()
        self._link = folder / "current"
        self._switch = folder / "switch.json"

    def current(self) -> Installed | None:
        """Return the model that runs, or None before the first one.

        Raises:
            DataError: its files are missing or damaged; install a release again.
        """
        slot = self._linked()
        if slot is None:
            return None
        path = self._folder / slot / "model.onnx"
        try:
            custom = json.loads((path.parent / "passport.json").read_bytes())
            passport = Passport.from_custom(custom)
            sha256 = digest(path.read_bytes())
        except (OSError, ValueError, FedgeError) as exc:
            raise DataError(f"slot {slot} is damaged; install again") from exc
        if sha256 != passport.unpacked_sha256:
            raise DataError(f"slot {slot}: the model is damaged; install again")
        return Installed(slot, path, passport)

    def stage(self, release: VerifiedRelease) -> Path:
        """Write a release into the slot that does not run; return the model's path.

        Raises:
            MisuseError: a switch is not committed yet.
        """
        self._check_no_switch()
        folder = self._folder / ("b" if self._linked() == "a" else "a")
        self._disk.make_folder(folder)
        self._disk.delete(folder / "passport.json")
        self._disk.write(folder / "model.onnx", release.artifact)
        custom = json.dumps(release.passport.to_custom()).encode()
        self._disk.write(folder / "passport.json", custom)
        return folder / "model.onnx"

    def activate(self, slot: str) -> None:
        """Let the staged slot run, provisionally: `commit` or `rollback` must follow.

        Args:
            slot: name of the folder that `stage` wrote to.

        Raises:
            MisuseError: not the staged slot, or a switch is not committed yet.
        """
        self._check_no_switch()
        previous = self._linked()
        if slot not in SLOTS or slot == previous:
            raise MisuseError(f"activate: {slot!r} is not the staged slot")
        if not (self._folder / slot / "passport.json").is_file():
            raise MisuseError(f"activate: nothing is staged in slot {slot!r}")
        self._disk.write(self._switch, json.dumps({"previous": previous}).encode())
        self._disk.point(self._link, slot)

    def commit(self) -> None:
        """Keep the activated model for good; MisuseError if there is none."""
        if not self._switch.exists():
            raise MisuseError("commit: no switch is under way")
        self._disk.delete(self._switch)

    def rollback(self) -> None:
        """Go back to what ran before `activate`.

        Raises:
            MisuseError: no switch is under way; after a commit there is no way back.
            DataError: the record of the switch is damaged.
        """
        if not self._switch.exists():
            raise MisuseError("rollback: no switch is under way")
        previous = self._previous()
        if previous is None:
            self._disk.delete(self._link)
        else:
            self._disk.point(self._link, previous)
        self._disk.delete(self._switch)

    def recover(self) -> bool:
        """Undo a switch that a crash left uncommitted; say whether there was one.

        Raises:
            DataError: the record of the switch is damaged.
        """
        if not self._switch.exists():
            return False
        self.rollback()
        return True

    def _linked(self) -> str | None:
        try:
            slot = os.readlink(self._link)
        except FileNotFoundError:
            return None
        if slot not in SLOTS:
            raise DataError(f"{self._link} points to {slot!r}; remove it by hand")
        return slot

    def _previous(self) -> str | None:
        try:
            previous = json.loads(self._switch.read_bytes())["previous"]
        except (ValueError, KeyError, TypeError) as exc:
            raise DataError(f"{self._switch} is damaged; remove it by hand") from exc
        if previous is not None and previous not in SLOTS:
            raise DataError(f"{self._switch} names the slot {previous!r}")
        return None if previous is None else str(previous)

    def _check_no_switch(self) -> None:
        if self._switch.exists():
            raise MisuseError("a switch is under way: commit, rollback or recover")
