import os
import stat
from pathlib import Path

import pytest

from fedge.release.disk import Disk
from tests.fedge.release.faulty_disk import (
    CountingDisk,
    DyingDisk,
    ForgetfulDisk,
    PowerCut,
)


def test_a_written_file_is_private_and_leaves_nothing_behind(tmp_path: Path) -> None:
    Disk().write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_replaced(tmp_path: Path) -> None:
    Disk().point(tmp_path / "link", "a")
    Disk().point(tmp_path / "link", "b")
    assert os.readlink(tmp_path / "link") == "b"


def test_a_temporary_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        Disk().write(tmp_path / "file", b"new")
    assert not (tmp_path / "victim").exists()


def test_nested_folders_are_made_and_may_exist(tmp_path: Path) -> None:
    Disk().make_folder(tmp_path / "a/b/c")
    Disk().make_folder(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()


def test_deleting_what_is_not_there_is_fine(tmp_path: Path) -> None:
    Disk().delete(tmp_path / "nothing")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Disk().write(tmp_path / "none/file", b"x")


@pytest.mark.parametrize("disk_kind", [DyingDisk, ForgetfulDisk])
def test_a_power_cut_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, disk_kind: type[DyingDisk]
) -> None:
    counting = CountingDisk()
    counting.write(tmp_path / "count", b"new content")
    assert counting.steps == 4
    for step in range(counting.steps):
        path = tmp_path / f"{step}"
        Disk().write(path, b"old content")
        with pytest.raises(PowerCut):
            disk_kind(step).write(path, b"new content")
        assert path.read_bytes() in (b"old content", b"new content")


def test_the_forgetful_disk_does_punish_a_missing_sync(tmp_path: Path) -> None:
    disk = ForgetfulDisk(1)
    disk.put(tmp_path / "file", b"new content")
    with pytest.raises(PowerCut):
        disk.replace(tmp_path / "file", tmp_path / "other")
    assert (tmp_path / "file").read_bytes() == b"new c"
