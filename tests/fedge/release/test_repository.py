from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # no __all__
    Metadata,
    Root,
)
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from fedge.errors import (
    ConfigError,
    DataError,
    DigestMismatchError,
    RolledBackError,
    VerificationError,
)
from fedge.release.bundle import ReleaseBundle
from fedge.release.keys import KeyRing
from fedge.release.repository import ReleaseRepository
from tests.fedge.release import kit
from tests.fedge.release.faulty_disk import (
    CountingDisk,
    DyingDisk,
    ForgetfulDisk,
    PowerCut,
)


class FolderFetcher(FetcherInterface):
    """What a plain web server in front of the folder would give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self.folder / urlsplit(url).path.lstrip("/")
        if not path.is_file():
            raise DownloadHTTPError("not found", 404)
        return iter((path.read_bytes(),))


def verified_version(bundle: ReleaseBundle, folder: Path, root: bytes) -> int:
    store = kit.device(folder, root)
    return store.verify(bundle, now=kit.NOW).passport.version


def opened_with(disk: CountingDisk, folder: Path, keys: KeyRing) -> ReleaseRepository:
    return ReleaseRepository.open(
        folder, keys, expiry_days=30.0, now=kit.NOW, disk=disk
    )


def test_a_new_repository_is_signed_by_the_root_keys_and_empty(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.repository(tmp_path, keys)
    root = Metadata[Root].from_bytes(opened.trusted_root()).signed
    assert (root.version, root.roles["root"].threshold) == (1, 2)
    assert len(root.roles["root"].keyids) == 3
    every_key = [keyid for role in root.roles.values() for keyid in role.keyids]
    assert len(set(every_key)) == len(every_key) == 6
    assert root.consistent_snapshot
    assert opened.latest() is None
    assert opened.bundle().targets == {}


def test_root_and_targets_live_a_year_and_the_others_as_told(
    tmp_path: Path, keys: KeyRing
) -> None:
    files = kit.published(tmp_path, keys, 1).bundle().metadata
    root = Metadata.from_bytes((tmp_path / "metadata/1.root.json").read_bytes())
    lives = [root.signed.expires - kit.NOW] + [
        Metadata.from_bytes(files[name]).signed.expires - kit.NOW
        for name in ("2.targets.json", "2.snapshot.json", "timestamp.json")
    ]
    assert [life.days for life in lives] == [365, 365, 30, 30]


def test_publishing_returns_the_version_of_the_passport(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.repository(tmp_path, keys)
    assert opened.publish(*kit.release(7), now=kit.NOW) == 7
    assert opened.latest() == kit.release(7)[1]


def test_publishing_the_same_again_changes_nothing(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.published(tmp_path, keys, 1)
    before = opened.bundle()
    later = kit.NOW + timedelta(days=1)
    assert opened.publish(*kit.release(1), now=later) == 1
    assert opened.bundle() == before


def test_a_repository_is_opened_again_as_it_was(tmp_path: Path, keys: KeyRing) -> None:
    first = kit.published(tmp_path, keys, 1)
    again = kit.repository(tmp_path, keys)
    assert again.bundle() == first.bundle()
    assert again.trusted_root() == first.trusted_root()


@pytest.mark.parametrize("version", [1, 2])
def test_a_version_that_is_not_newer_is_refused(
    tmp_path: Path, keys: KeyRing, version: int
) -> None:
    opened = kit.published(tmp_path, keys, 2)
    other = kit.release_of(kit.linear_model(kit.weights(9)), version)
    with pytest.raises(RolledBackError, match=f"release {version} is not newer"):
        opened.publish(*other, now=kit.NOW)


def test_an_artifact_that_is_not_the_described_model_is_refused(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.repository(tmp_path, keys)
    artifact, passport = kit.release(1)
    with pytest.raises(DigestMismatchError):
        opened.publish(
            artifact, replace(passport, unpacked_sha256="0" * 64), now=kit.NOW
        )
    with pytest.raises(VerificationError, match="zstd"):
        opened.publish(b"not packed", passport, now=kit.NOW)
    assert opened.latest() is None


def test_a_target_path_out_of_the_folder_is_refused(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.repository(tmp_path, keys)
    with pytest.raises(VerificationError, match="target path"):
        opened.publish(*kit.release(1), target_path="../x", now=kit.NOW)


def test_other_keys_are_refused(
    tmp_path: Path, keys: KeyRing, stranger_keys: KeyRing
) -> None:
    kit.repository(tmp_path, keys)
    with pytest.raises(ConfigError, match="not a key of this repository"):
        kit.repository(tmp_path, stranger_keys)


def test_releases_need_no_root_key(tmp_path: Path, keys: KeyRing) -> None:
    kit.repository(tmp_path, keys)
    online = {name: key for name, key in keys.signers.items() if "root" not in name}
    opened = kit.repository(tmp_path, KeyRing(online, root_threshold=2))
    assert opened.publish(*kit.release(1), now=kit.NOW) == 1
    with pytest.raises(ConfigError, match="role 'root'"):
        opened.refresh(kit.NOW + timedelta(days=200))


def test_refresh_signs_only_what_is_halfway_to_its_end(
    tmp_path: Path, keys: KeyRing
) -> None:
    opened = kit.published(tmp_path, keys, 1)
    before = opened.bundle()
    opened.refresh(kit.NOW + timedelta(days=14))
    assert opened.bundle() == before
    opened.refresh(kit.NOW + timedelta(days=16))
    assert sorted(opened.bundle().metadata) == [
        "2.targets.json",
        "3.snapshot.json",
        "timestamp.json",
    ]


def test_refresh_keeps_a_release_alive_for_years(tmp_path: Path, keys: KeyRing) -> None:
    opened = kit.published(tmp_path / "repository", keys, 1)
    store = kit.device(tmp_path, opened.trusted_root())
    versions = []
    for days in range(10, 600, 14):
        now = kit.NOW + timedelta(days=days)
        opened.refresh(now)
        versions.append(store.verify(opened.bundle(), now=now).passport.version)
    assert set(versions) == {1}


def test_a_lost_file_is_named(tmp_path: Path, keys: KeyRing) -> None:
    opened = kit.published(tmp_path, keys, 1)
    (tmp_path / "metadata/2.targets.json").unlink()
    with pytest.raises(DataError, match=r"2\.targets\.json"):
        opened.bundle()


def test_a_damaged_file_is_named(tmp_path: Path, keys: KeyRing) -> None:
    opened = kit.published(tmp_path, keys, 1)
    (tmp_path / "metadata/timestamp.json").write_bytes(b"{")
    with pytest.raises(DataError, match=r"timestamp\.json is damaged"):
        opened.bundle()


def test_a_plain_tuf_client_can_read_the_folder(tmp_path: Path, keys: KeyRing) -> None:
    # The oracle: TUF's own client with its own settings, as behind a web server. It
    # asks the system's clock, which is before NOW.
    opened = kit.published(tmp_path / "repository", keys, 1)
    updater = Updater(
        str(tmp_path / "client"),
        "https://example.org/metadata/",
        target_base_url="https://example.org/targets/",
        fetcher=FolderFetcher(tmp_path / "repository"),
        bootstrap=opened.trusted_root(),
    )
    target = updater.get_targetinfo("model.onnx.zst")
    assert target is not None
    path = updater.download_target(target, str(tmp_path / "downloaded"))
    assert Path(path).read_bytes() == kit.release(1)[0]


@pytest.mark.parametrize("disk_kind", [DyingDisk, ForgetfulDisk])
def test_a_power_cut_while_publishing_leaves_the_old_or_the_new_release(
    tmp_path: Path, keys: KeyRing, disk_kind: type[DyingDisk]
) -> None:
    counting = CountingDisk()
    kit.published(tmp_path / "count", keys, 1)
    opened_with(counting, tmp_path / "count", keys).publish(
        *kit.release(2), now=kit.NOW
    )
    assert counting.steps == 16
    for step in range(counting.steps):
        folder = tmp_path / f"{step}"
        root = kit.published(folder, keys, 1).trusted_root()
        with pytest.raises(PowerCut):
            opened_with(disk_kind(step), folder, keys).publish(
                *kit.release(2), now=kit.NOW
            )
        again = kit.repository(folder, keys)
        assert verified_version(again.bundle(), folder / "device-1", root) in (1, 2)
        assert again.publish(*kit.release(2), now=kit.NOW) == 2
        assert verified_version(again.bundle(), folder / "device-2", root) == 2


@pytest.mark.parametrize("disk_kind", [DyingDisk, ForgetfulDisk])
def test_a_power_cut_while_a_repository_is_made_is_made_good(
    tmp_path: Path, keys: KeyRing, disk_kind: type[DyingDisk]
) -> None:
    counting = CountingDisk()
    opened_with(counting, tmp_path / "count", keys)
    assert counting.steps > 16
    for step in range(counting.steps):
        folder = tmp_path / f"{step}"
        with pytest.raises(PowerCut):
            opened_with(disk_kind(step), folder, keys)
        opened = kit.published(folder, keys, 1)
        root = opened.trusted_root()
        assert verified_version(opened.bundle(), folder / "device", root) == 1
