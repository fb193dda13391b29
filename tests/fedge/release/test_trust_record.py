"""What a device remembers: its root, the time, the newest release."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedge.errors import (
    BadSignatureError,
    DataError,
    DigestMismatchError,
    ExpiredError,
    MisuseError,
    RolledBackError,
    VerificationError,
)
from fedge.release.keys import KeyRing
from fedge.release.repository import ReleaseRepository
from fedge.release.trust import TrustStore
from tests.fedge.release import kit

YEAR_1970 = datetime(1970, 1, 2, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path: Path, keys: KeyRing) -> ReleaseRepository:
    return kit.published(tmp_path / "repository", keys, 1)


@pytest.fixture
def store(tmp_path: Path, repository: ReleaseRepository) -> TrustStore:
    return kit.device(tmp_path, repository.trusted_root())


def test_a_frozen_repository_is_noticed_when_its_timestamp_expires(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    bundle = repository.bundle()
    store.verify(bundle, now=kit.NOW + timedelta(days=29))
    with pytest.raises(ExpiredError):
        store.verify(bundle, now=kit.NOW + timedelta(days=31))


def test_without_a_time_the_clock_decides(tmp_path: Path, keys: KeyRing) -> None:
    opened = ReleaseRepository.open(
        tmp_path / "old", keys, expiry_days=1.0, now=datetime(2020, 1, 1, tzinfo=UTC)
    )
    opened.publish(*kit.release(1), now=datetime(2020, 1, 1, tzinfo=UTC))
    store = kit.device(tmp_path, opened.trusted_root())
    with pytest.raises(ExpiredError):
        store.verify(opened.bundle())


def test_a_clock_that_fell_back_does_not_revive_expired_metadata(
    tmp_path: Path, store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    store.verify(repository.bundle(), now=kit.NOW + timedelta(days=20))
    hasty = ReleaseRepository.open(
        tmp_path / "repository", keys, expiry_days=5.0, now=kit.NOW
    )
    hasty.publish(*kit.release(2), now=kit.NOW)
    with pytest.raises(ExpiredError):
        store.verify(hasty.bundle(), now=YEAR_1970)


def test_a_clock_that_fell_back_does_not_lock_the_device_out(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    store.verify(repository.bundle(), now=kit.NOW)
    repository.publish(*kit.release(2), now=kit.NOW)
    assert store.verify(repository.bundle(), now=YEAR_1970).passport.version == 2


def test_a_refused_bundle_leaves_the_record_as_it_was(
    tmp_path: Path, store: TrustStore, repository: ReleaseRepository
) -> None:
    store.verify(repository.bundle(), now=kit.NOW)
    before = (tmp_path / "trust/accepted.json").read_bytes()
    repository.publish(*kit.release(2), now=kit.NOW)
    with pytest.raises(DigestMismatchError):
        store.verify(kit.with_artifact(repository.bundle(), b"x"), now=kit.NOW)
    assert (tmp_path / "trust/accepted.json").read_bytes() == before


def test_another_root_is_not_provisioned_over_the_first(
    tmp_path: Path, store: TrustStore, stranger_keys: KeyRing, keys: KeyRing
) -> None:
    other = kit.published(tmp_path / "stranger", stranger_keys, 1)
    with pytest.raises(VerificationError, match="already trusts another root"):
        store.provision(other.trusted_root())


def test_the_same_root_may_be_provisioned_again(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    store.provision(repository.trusted_root())


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 5000])
def test_rubbish_is_not_provisioned(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadSignatureError):
        TrustStore(tmp_path / "new").provision(data)


def test_other_metadata_is_not_provisioned_as_a_root(
    tmp_path: Path, repository: ReleaseRepository
) -> None:
    timestamp = repository.bundle().metadata["timestamp.json"]
    with pytest.raises(VerificationError, match="not root metadata"):
        TrustStore(tmp_path / "new").provision(timestamp)


def test_a_device_without_a_root_verifies_nothing(
    tmp_path: Path, repository: ReleaseRepository
) -> None:
    with pytest.raises(MisuseError, match="provision"):
        TrustStore(tmp_path / "new").verify(repository.bundle(), now=kit.NOW)


def test_a_cache_lost_in_a_power_cut_is_rebuilt_from_the_next_bundle(
    tmp_path: Path, store: TrustStore, repository: ReleaseRepository
) -> None:
    later = kit.NOW + timedelta(days=200)
    repository.refresh(later)
    store.verify(repository.bundle(), now=later)
    for path in (tmp_path / "trust/metadata").rglob("*.json"):
        os.truncate(path, 0)
    assert store.verify(repository.bundle(), now=later).passport.version == 1


def test_a_lost_cache_does_not_open_the_way_back(
    tmp_path: Path, store: TrustStore, repository: ReleaseRepository
) -> None:
    old = repository.bundle()
    repository.publish(*kit.release(2), now=kit.NOW)
    store.verify(repository.bundle(), now=kit.NOW)
    for path in (tmp_path / "trust/metadata").rglob("*.json"):
        os.truncate(path, 0)
    with pytest.raises(RolledBackError, match="release 1 is older than 2"):
        store.verify(old, now=kit.NOW)


@pytest.mark.parametrize("text", ["", "[]", '{"clock_floor": "soon"}'])
def test_a_damaged_record_stops_the_device(
    tmp_path: Path, store: TrustStore, repository: ReleaseRepository, text: str
) -> None:
    (tmp_path / "trust/accepted.json").write_text(text)
    with pytest.raises(DataError, match="damaged"):
        store.verify(repository.bundle(), now=kit.NOW)


def test_versions_may_be_skipped(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    store.verify(repository.bundle(), now=kit.NOW)
    for version in (2, 3, 70):
        repository.publish(*kit.release(version), now=kit.NOW)
    assert store.verify(repository.bundle(), now=kit.NOW).passport.version == 70
