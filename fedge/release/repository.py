"""The publisher's side of TUF: signs a release and hands it out as a bundle.

The folder is an ordinary TUF repository with consistent snapshots: `metadata/` and
`targets/` can also be served by any web server. Consistent, because then no file that
a device may be reading is ever overwritten: every new version has its own name, and
replacing `timestamp.json`, the last step, is what makes a release visible. A crash
before that step leaves the old release and a file that the next attempt replaces.

What is not in here: delegations and key rotation.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TypeVar

from tuf.api.metadata import (  # type: ignore[attr-defined]  # no __all__
    Key,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from fedge.config.ranges import check_more_than
from fedge.errors import ConfigError, DataError, RolledBackError
from fedge.release.artifact import unpack_model
from fedge.release.bundle import ReleaseBundle, check_target_path
from fedge.release.disk import Disk
from fedge.release.keys import ONLINE_ROLES, KeyRing
from fedge.release.passport import Passport
from fedge.release.trust import DEFAULT_TARGET_PATH

ROOT_EXPIRY_DAYS = TARGETS_EXPIRY_DAYS = 365.0
_COMPACT = JSONSerializer(compact=True)
_HASHES = ["sha256"]
T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


class ReleaseRepository:
    """One folder of signed releases; made by `open`, by one process at a time."""

    def __init__(
        self, folder: Path, keys: KeyRing, expiry_days: float, disk: Disk
    ) -> None:
        self._metadata, self._targets = folder / "metadata", folder / "targets"
        self._keys, self._expiry_days, self._disk = keys, expiry_days, disk

    @classmethod
    def open(
        cls,
        folder: Path,
        keys: KeyRing,
        *,
        expiry_days: float,
        now: datetime,
        disk: Disk | None = None,
    ) -> Self:
        """Load the repository in `folder`, or make an empty one.

        Args:
            folder: created if it is missing.
            keys: to make a repository, all of them; later those of the roles to sign.
            expiry_days: life of snapshot and timestamp, > 0.
            now: the time, with time zone.
            disk: how to write.

        Raises:
            ConfigError: a key is missing, or the repository belongs to other keys.
            DataError: a file of the repository is missing or damaged.
        """
        check_more_than("release.expiry_days", expiry_days, 0.0)
        self = cls(folder, keys, expiry_days, disk or Disk())
        for path in (self._metadata, self._targets):
            self._disk.make_folder(path)
        if not (self._metadata / "1.root.json").exists():
            self._write_root(_first_root(keys), now)
        self._check_keys()
        if not (self._metadata / "timestamp.json").exists():
            self._commit(Targets(version=1), now, snapshot_version=1, version=1)
        return self

    def trusted_root(self) -> bytes:
        """Return the first root, with which devices are provisioned."""
        return (self._metadata / "1.root.json").read_bytes()

    def latest(self, target_path: str = DEFAULT_TARGET_PATH) -> Passport | None:
        """Return the passport of the newest release, or None before the first one."""
        target = self._load_targets().targets.get(target_path)
        return None if target is None else Passport.from_custom(target.custom)

    def publish(
        self,
        artifact: bytes,
        passport: Passport,
        *,
        target_path: str = DEFAULT_TARGET_PATH,
        now: datetime,
    ) -> int:
        """Sign a release and make it the newest one; return its version.

        Guarantee: the same artifact and passport a second time change nothing, so a
        publisher that crashed may simply try again.

        Args:
            artifact: one zstd frame with the ONNX file.
            passport: its `version` is the release's version.
            target_path: the name devices ask for.
            now: the time, with time zone.

        Raises:
            VerificationError: the artifact is not what the passport says, or the path
                is not allowed.
            RolledBackError: the version is not newer than the published one.
            ConfigError: a key is missing.
        """
        check_target_path(target_path)
        size, sha256 = passport.unpacked_bytes, passport.unpacked_sha256
        unpack_model(artifact, num_bytes=size, sha256=sha256)
        target = TargetFile.from_data(target_path, artifact, _HASHES)
        target.unrecognized_fields["custom"] = passport.to_custom()
        targets = self._load_targets()
        if targets.targets.get(target_path) == target:
            return passport.version
        _check_newer(passport, self.latest(target_path))
        self._disk.write(self._targets / _hashed_name(target), artifact)
        targets.targets[target_path] = target
        targets.version += 1
        self._commit_next(targets, now)
        return passport.version

    def refresh(self, now: datetime) -> None:
        """Sign anew, unchanged, whatever has less than half of its life left.

        Between releases somebody has to do this, or devices stop believing that the
        release they have is the newest one.

        Raises:
            ConfigError: a key that is needed is not here.
        """
        root, targets = self._load_root(), self._load_targets()
        if _is_stale(root, ROOT_EXPIRY_DAYS, now):
            root.version += 1
            self._write_root(root, now)
        if _is_stale(targets, TARGETS_EXPIRY_DAYS, now):
            targets.version += 1
            self._commit_next(targets, now)
        elif _is_stale(self._load_timestamp(), self._expiry_days, now):
            self._commit_next(targets, now)

    def bundle(self) -> ReleaseBundle:
        """Return everything a device needs, whichever root it knows.

        Raises:
            DataError: a file of the repository is missing or damaged.
        """
        timestamp, targets = self._load_timestamp(), self._load_targets()
        snapshot_name = f"{timestamp.snapshot_meta.version}.snapshot.json"
        names = ["timestamp.json", snapshot_name, f"{targets.version}.targets.json"]
        roots = range(2, self._load_root().version + 1)
        names += [f"{version}.root.json" for version in roots]
        return ReleaseBundle(
            {name: _read(self._metadata / name) for name in names},
            {
                path: _read(self._targets / _hashed_name(target))
                for path, target in targets.targets.items()
            },
        )

    def _commit_next(self, targets: Targets, now: datetime) -> None:
        timestamp = self._load_timestamp()
        self._commit(
            targets,
            now,
            snapshot_version=timestamp.snapshot_meta.version + 1,
            version=timestamp.version + 1,
        )

    def _commit(
        self, targets: Targets, now: datetime, *, snapshot_version: int, version: int
    ) -> None:
        """Write targets, snapshot and, last, the timestamp that shows them."""
        life = TARGETS_EXPIRY_DAYS
        name = f"{targets.version}.targets.json"
        meta = MetaFile.from_data(
            targets.version, self._write(name, targets, now, life), _HASHES
        )
        snapshot = Snapshot(version=snapshot_version, meta={"targets.json": meta})
        name, life = f"{snapshot_version}.snapshot.json", self._expiry_days
        meta = MetaFile.from_data(
            snapshot_version, self._write(name, snapshot, now, life), _HASHES
        )
        timestamp = Timestamp(version=version, snapshot_meta=meta)
        self._write("timestamp.json", timestamp, now, life)

    def _write_root(self, root: Root, now: datetime) -> None:
        self._write(f"{root.version}.root.json", root, now, ROOT_EXPIRY_DAYS)

    def _write(self, name: str, signed: T, now: datetime, life_days: float) -> bytes:
        signed.expires = _whole_seconds(now + timedelta(days=life_days))
        metadata = Metadata(signed)
        for signer in self._keys.of_role(signed.type):
            metadata.sign(signer, append=True)
        data = metadata.to_bytes(_COMPACT)
        self._disk.write(self._metadata / name, data)
        return data

    def _check_keys(self) -> None:
        roles = self._load_root().roles
        for name, signer in self._keys.signers.items():
            role = name.split("-")[0]
            if signer.public_key.keyid not in roles[role].keyids:
                raise ConfigError(
                    f"keys: {name} is not a key of this repository; use the keys it "
                    "was made with"
                )

    def _load_root(self) -> Root:
        versions = [
            int(path.name.partition(".")[0])
            for path in self._metadata.glob("*.root.json")
        ]
        return _load(self._metadata / f"{max(versions)}.root.json", Root)

    def _load_timestamp(self) -> Timestamp:
        return _load(self._metadata / "timestamp.json", Timestamp)

    def _load_targets(self) -> Targets:
        version = self._load_timestamp().snapshot_meta.version
        snapshot = _load(self._metadata / f"{version}.snapshot.json", Snapshot)
        version = snapshot.meta["targets.json"].version
        return _load(self._metadata / f"{version}.targets.json", Targets)


def _first_root(keys: KeyRing) -> Root:
    public: dict[str, Key] = {}
    roles: dict[str, Role] = {}
    for role in ("root", *ONLINE_ROLES):
        signers = keys.of_role(role)
        public |= {signer.public_key.keyid: signer.public_key for signer in signers}
        threshold = keys.root_threshold if role == "root" else 1
        roles[role] = Role([signer.public_key.keyid for signer in signers], threshold)
    return Root(version=1, keys=public, roles=roles, consistent_snapshot=True)


def _load(path: Path, kind: type[T]) -> T:
    try:
        signed = Metadata[T].from_bytes(_read(path)).signed
    except DeserializationError as exc:
        raise DataError(f"repository file {path} is damaged") from exc
    if not isinstance(signed, kind):
        raise DataError(f"{path} is not {kind.type} metadata")
    return signed


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise DataError(f"repository file {path}: {exc.strerror}") from exc


def _hashed_name(target: TargetFile) -> str:
    return f"{target.hashes['sha256']}.{target.path}"


def _check_newer(passport: Passport, latest: Passport | None) -> None:
    if latest is not None and passport.version <= latest.version:
        raise RolledBackError(
            f"release {passport.version} is not newer than the published "
            f"{latest.version}; give it a higher version"
        )


def _is_stale(signed: Root | Targets | Timestamp, days: float, now: datetime) -> bool:
    return signed.expires - now < timedelta(days=days / 2)


def _whole_seconds(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)
