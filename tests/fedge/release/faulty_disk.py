"""A disk whose machine loses its power after a given number of steps."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fedge.release.disk import Disk


class PowerCut(BaseException):
    """Nothing runs after this; not an Exception, so that no cleanup is mistaken."""


class UnsyncedDisk(Disk):
    """Forces nothing onto the disk: for tests of other things, in large numbers."""

    def sync_file(self, path: Path) -> None:
        assert path.is_file()

    def sync_folder(self, path: Path) -> None:
        assert path.is_dir()


class CountingDisk(UnsyncedDisk):
    """Says before each step how many there were; subclasses may stop there."""

    steps = 0

    def before_step(self) -> None:
        self.steps += 1

    def put(self, path: Path, data: bytes) -> None:
        super().put(path, data[: len(data) // 2])  # a cut here leaves half a file
        self.before_step()
        super().put(path, data)

    def sync_file(self, path: Path) -> None:
        self.before_step()
        super().sync_file(path)

    def sync_folder(self, path: Path) -> None:
        self.before_step()
        super().sync_folder(path)

    def replace(self, source: Path, path: Path) -> None:
        self.before_step()
        super().replace(source, path)

    def symlink(self, link: Path, target: str) -> None:
        self.before_step()
        super().symlink(link, target)

    def remove(self, path: Path) -> None:
        self.before_step()
        super().remove(path)

    def create_folder(self, path: Path) -> None:
        self.before_step()
        super().create_folder(path)


class DyingDisk(CountingDisk):
    """Raises PowerCut instead of the step after `steps_left`; keeps what was done."""

    def __init__(self, steps_left: int) -> None:
        self.steps_left = steps_left

    def before_step(self) -> None:
        super().before_step()
        if self.steps > self.steps_left:
            raise PowerCut


class FullDisk(CountingDisk):
    """Raises an ordinary OSError from the step after `steps_left` on."""

    def __init__(self, steps_left: int) -> None:
        self.steps_left = steps_left

    def before_step(self) -> None:
        super().before_step()
        if self.steps > self.steps_left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class ForgetfulDisk(DyingDisk):
    """Also loses whatever was not forced onto the disk: the worst that is allowed.

    Bytes without `sync_file` are cut in half; names without `sync_folder` go back.
    """

    def __init__(self, steps_left: int) -> None:
        super().__init__(steps_left)
        self._loose_bytes: set[Path] = set()
        self._undo: list[tuple[Path, Callable[[], None]]] = []

    def before_step(self) -> None:
        try:
            super().before_step()
        except PowerCut:
            self._forget()
            raise

    def put(self, path: Path, data: bytes) -> None:
        self._loose_bytes.add(path)
        super().put(path, data)

    def sync_file(self, path: Path) -> None:
        super().sync_file(path)
        self._loose_bytes.discard(path)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._undo = [(at, undo) for at, undo in self._undo if at != path]

    def replace(self, source: Path, path: Path) -> None:
        undo = _restorer(path)
        super().replace(source, path)
        self._undo.append((path.parent, undo))
        if source in self._loose_bytes:
            self._loose_bytes.add(path)

    def symlink(self, link: Path, target: str) -> None:
        undo = _restorer(link)
        super().symlink(link, target)
        self._undo.append((link.parent, undo))

    def remove(self, path: Path) -> None:
        undo = _restorer(path)
        super().remove(path)
        self._undo.append((path.parent, undo))

    def create_folder(self, path: Path) -> None:
        super().create_folder(path)
        self._undo.append((path.parent, lambda: shutil.rmtree(path)))

    def _forget(self) -> None:
        for path in self._loose_bytes:
            if path.is_file() and not path.is_symlink():
                os.truncate(path, path.stat().st_size // 2)
        for _, undo in reversed(self._undo):
            undo()


def _restorer(path: Path) -> Callable[[], None]:
    """Return a function that puts back what is at `path` now."""
    if path.is_symlink():
        target = os.readlink(path)
        return lambda: _restore_link(path, target)
    data = path.read_bytes() if path.exists() else None
    return lambda: _restore_file(path, data)


def _restore_link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _restore_file(path: Path, data: bytes | None) -> None:
    path.unlink(missing_ok=True)
    if data is not None:
        path.write_bytes(data)
