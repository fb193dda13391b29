"""The few things done to a disk, each of which survives a power cut.

Everything in `fedge.release` that must be old or new, never half, goes through one
`Disk`. It is a port: a test gives another one, which stops the machine after any step
and forgets what was not yet forced onto the disk.
"""

import os
from pathlib import Path


class Disk:
    """Files of the real file system; one method per step that a power cut can follow.

    `write` and `point` are made of the steps and are what callers use.
    """

    def write(self, path: Path, data: bytes) -> None:
        """Put `data` at `path`.

        Guarantee: after a crash at any time the file is the old one or the new one,
        whole; once this returns it is the new one.
        """
        temporary = path.with_name(path.name + ".tmp")
        self.put(temporary, data)
        self.sync_file(temporary)
        self.replace(temporary, path)
        self.sync_folder(path.parent)

    def point(self, link: Path, target: str) -> None:
        """Make the link `link` point to `target`; same guarantee as `write`."""
        temporary = link.with_name(link.name + ".tmp")
        self.remove(temporary)
        self.symlink(temporary, target)
        self.replace(temporary, link)
        self.sync_folder(link.parent)

    def delete(self, path: Path) -> None:
        """Remove `path` if it is there, for good once this returns."""
        self.remove(path)
        self.sync_folder(path.parent)

    def make_folder(self, path: Path) -> None:
        """Create `path` and its parents, for good once this returns."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        self.create_folder(path)
        self.sync_folder(path.parent)

    # The steps.

    def put(self, path: Path, data: bytes) -> None:
        """Create or overwrite a file, readable by its owner only."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(data)

    def sync_file(self, path: Path) -> None:
        """Force a file's bytes onto the disk."""
        _sync(path, os.O_RDONLY)

    def sync_folder(self, path: Path) -> None:
        """Force a folder's names onto the disk."""
        _sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def replace(self, source: Path, path: Path) -> None:
        """Rename, replacing what is there, in one atomic step."""
        os.replace(source, path)

    def symlink(self, link: Path, target: str) -> None:
        """Create a symbolic link."""
        link.symlink_to(target)

    def remove(self, path: Path) -> None:
        """Remove a file or a link if it is there."""
        path.unlink(missing_ok=True)

    def create_folder(self, path: Path) -> None:
        """Create one folder; one that is already there is fine."""
        path.mkdir(exist_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
