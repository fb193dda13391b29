"""The attack table: what a device is offered, and the error that must come of it."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import (  # type: ignore[attr-defined]  # no __all__
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
)

from fedge.compress.pack import pack
from fedge.errors import (
    BadSignatureError,
    DigestMismatchError,
    RolledBackError,
    VerificationError,
)
from fedge.release.bundle import ReleaseBundle
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


def forged_root(
    repository: ReleaseRepository, keys: KeyRing, num_signatures: int
) -> dict[str, object]:
    """The second root with too few signatures, as a JSON object."""
    root = Metadata[Root].from_bytes(repository.trusted_root())
    root.signed.version = 2
    root.signatures.clear()
    for signer in keys.of_role("root")[:num_signatures]:
        root.sign(signer, append=True)
    plain: dict[str, object] = json.loads(root.to_bytes())
    return plain


def with_root(bundle: ReleaseBundle, root: Mapping[str, object]) -> ReleaseBundle:
    return kit.with_metadata(bundle, **{"2_root_json": json.dumps(root).encode()})


def test_a_genuine_release_comes_out_as_it_was_published(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    release = store.verify(repository.bundle(), now=kit.NOW)
    assert release.artifact == kit.linear_model(kit.weights(1))
    assert release.passport == kit.release(1)[1]


def test_the_same_release_may_be_verified_again(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    first = store.verify(repository.bundle(), now=kit.NOW)
    assert store.verify(repository.bundle(), now=kit.NOW) == first


def test_a_rolled_back_timestamp_is_refused(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    old = repository.bundle()
    repository.publish(*kit.release(2), now=kit.NOW)
    store.verify(repository.bundle(), now=kit.NOW)
    with pytest.raises(RolledBackError, match="timestamp version"):
        store.verify(old, now=kit.NOW)


def test_targets_rolled_back_by_stolen_online_keys_are_refused(
    store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    repository.publish(*kit.release(2), now=kit.NOW)
    store.verify(repository.bundle(), now=kit.NOW)
    artifact, passport = kit.release(9)
    custom = passport.to_custom()
    forged = kit.forged_bundle(keys, artifact, custom, targets_version=1)
    with pytest.raises(RolledBackError, match=r"targets\.json version"):
        store.verify(forged, now=kit.NOW)


def test_an_old_release_under_new_metadata_is_refused(
    store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    repository.publish(*kit.release(2), now=kit.NOW)
    store.verify(repository.bundle(), now=kit.NOW)
    artifact, passport = kit.release(1)
    forged = kit.forged_bundle(keys, artifact, passport.to_custom())
    with pytest.raises(RolledBackError, match="release 1 is older than 2"):
        store.verify(forged, now=kit.NOW)


def test_other_content_under_a_known_version_is_refused(
    store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    store.verify(repository.bundle(), now=kit.NOW)
    artifact, passport = kit.release_of(kit.linear_model(kit.weights(8)), 1)
    forged = kit.forged_bundle(keys, artifact, passport.to_custom())
    with pytest.raises(RolledBackError, match="with other content"):
        store.verify(forged, now=kit.NOW)


def test_an_artifact_with_one_other_bit_is_refused(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    artifact = bytearray(kit.release(1)[0])
    artifact[20] ^= 1
    bundle = kit.with_artifact(repository.bundle(), bytes(artifact))
    with pytest.raises(DigestMismatchError):
        store.verify(bundle, now=kit.NOW)


@pytest.mark.parametrize("change", [slice(0, -1), slice(0, 0), slice(1, None)])
def test_a_truncated_artifact_is_refused(
    store: TrustStore, repository: ReleaseRepository, change: slice
) -> None:
    bundle = kit.with_artifact(repository.bundle(), kit.release(1)[0][change])
    with pytest.raises(DigestMismatchError):
        store.verify(bundle, now=kit.NOW)


def test_fifty_megabytes_after_the_artifact_are_refused(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    long = kit.release(1)[0] + bytes(50_000_000)
    with pytest.raises(DigestMismatchError):
        store.verify(kit.with_artifact(repository.bundle(), long), now=kit.NOW)


def test_keys_of_somebody_else_are_refused(
    tmp_path: Path, store: TrustStore, stranger_keys: KeyRing
) -> None:
    other = kit.published(tmp_path / "stranger", stranger_keys, 2)
    with pytest.raises(BadSignatureError, match="signed by 0/1 keys"):
        store.verify(other.bundle(), now=kit.NOW)


def test_a_huge_timestamp_is_refused(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    bundle = repository.bundle()
    huge = bundle.metadata["timestamp.json"] + b" " * 16_384
    with pytest.raises(DigestMismatchError, match="16384"):
        store.verify(kit.with_metadata(bundle, timestamp_json=huge), now=kit.NOW)


def test_metadata_of_two_releases_do_not_mix(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    old = repository.bundle()
    repository.publish(*kit.release(2), now=kit.NOW)
    mixed = kit.with_metadata(
        repository.bundle(), **{"3_snapshot_json": old.metadata["2.snapshot.json"]}
    )
    with pytest.raises(DigestMismatchError):
        store.verify(mixed, now=kit.NOW)


def test_a_root_with_too_few_signatures_is_refused(
    store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    root = forged_root(repository, keys, num_signatures=1)
    with pytest.raises(BadSignatureError, match="signed by 1/2 keys"):
        store.verify(with_root(repository.bundle(), root), now=kit.NOW)


def test_one_signature_listed_twice_does_not_count_as_two(
    store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    root = forged_root(repository, keys, num_signatures=1)
    signature = root["signatures"][0]  # type: ignore[index]  # plain JSON
    with pytest.raises(BadSignatureError, match="deserialize"):
        store.verify(
            with_root(repository.bundle(), {**root, "signatures": [signature] * 2}),
            now=kit.NOW,
        )


def test_one_signature_under_two_key_ids_does_not_count_as_two(
    store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    root = forged_root(repository, keys, num_signatures=1)
    signature = root["signatures"][0]  # type: ignore[index]  # plain JSON
    other_id = keys.of_role("root")[1].public_key.keyid
    both = [signature, {**signature, "keyid": other_id}]
    with pytest.raises(BadSignatureError, match="signed by 1/2 keys"):
        store.verify(
            with_root(repository.bundle(), {**root, "signatures": both}), now=kit.NOW
        )


def test_a_root_that_was_refused_is_not_trusted_later(
    tmp_path: Path, store: TrustStore, repository: ReleaseRepository, keys: KeyRing
) -> None:
    root = forged_root(repository, keys, num_signatures=1)
    with pytest.raises(BadSignatureError):
        store.verify(with_root(repository.bundle(), root), now=kit.NOW)
    assert os.listdir(tmp_path / "trust/metadata/root_history") == ["1.root.json"]
    assert store.verify(repository.bundle(), now=kit.NOW).passport.version == 1


def test_a_renewed_root_is_followed(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    later = kit.NOW + timedelta(days=200)
    repository.refresh(later)
    assert "2.root.json" in repository.bundle().metadata
    assert store.verify(repository.bundle(), now=later).passport.version == 1


def test_a_delegated_role_is_never_followed(store: TrustStore, keys: KeyRing) -> None:
    key = keys.of_role("targets")[0].public_key
    role = DelegatedRole("../../evil", [key.keyid], 1, True, paths=["*"])
    delegations = Delegations({key.keyid: key}, {role.name: role})
    artifact, passport = kit.release(9)
    forged = kit.forged_bundle(
        keys, artifact, passport.to_custom(), delegations=delegations
    )
    with pytest.raises(VerificationError, match="no target"):
        store.verify(forged, now=kit.NOW)


@pytest.mark.parametrize("path", ["../model.onnx.zst", "/etc/passwd", "", ".hidden"])
def test_a_target_path_cannot_leave_its_folder(store: TrustStore, path: str) -> None:
    with pytest.raises(VerificationError, match="target path"):
        store.verify(ReleaseBundle({}, {}), target_path=path, now=kit.NOW)


@pytest.mark.parametrize(
    "name", ["timestamp.json", "2.snapshot.json", "2.targets.json"]
)
def test_a_bundle_without_a_metadata_file_is_refused(
    store: TrustStore, repository: ReleaseRepository, name: str
) -> None:
    bundle = repository.bundle()
    files = {key: data for key, data in bundle.metadata.items() if key != name}
    with pytest.raises(VerificationError, match=f"{name} is not in the bundle"):
        store.verify(ReleaseBundle(files, bundle.targets), now=kit.NOW)


def test_a_bundle_without_the_artifact_is_refused(
    store: TrustStore, repository: ReleaseRepository
) -> None:
    bundle = ReleaseBundle(repository.bundle().metadata, {})
    with pytest.raises(VerificationError, match=r"model\.onnx\.zst is missing"):
        store.verify(bundle, now=kit.NOW)


def test_a_signed_bomb_is_not_unpacked(store: TrustStore, keys: KeyRing) -> None:
    bomb = pack(bytes(100_000_000), level=3)
    custom = kit.release(1)[1].to_custom()
    with pytest.raises(VerificationError, match="states 100000000 bytes"):
        store.verify(kit.forged_bundle(keys, bomb, custom), now=kit.NOW)


def test_a_signed_artifact_with_another_model_is_refused(
    store: TrustStore, keys: KeyRing
) -> None:
    other = pack(kit.linear_model(kit.weights(8)), level=3)
    custom = kit.release(1)[1].to_custom()
    with pytest.raises(DigestMismatchError, match="not the signed model"):
        store.verify(kit.forged_bundle(keys, other, custom), now=kit.NOW)


@pytest.mark.parametrize(
    "custom", [None, "text", {}, {"passport": 1}, {"passport": "{}"}, {"a": 1, "b": 2}]
)
def test_a_signed_passport_that_is_none_is_refused(
    store: TrustStore, keys: KeyRing, custom: object
) -> None:
    forged = kit.forged_bundle(keys, kit.release(1)[0], custom)
    with pytest.raises(VerificationError, match="passport"):
        store.verify(forged, now=kit.NOW)


def test_a_root_that_does_not_sign_itself_is_not_provisioned(
    tmp_path: Path, repository: ReleaseRepository, keys: KeyRing
) -> None:
    forged = json.dumps(forged_root(repository, keys, num_signatures=1)).encode()
    with pytest.raises(BadSignatureError, match="signed by 1/2 keys"):
        TrustStore(tmp_path / "new").provision(forged)
