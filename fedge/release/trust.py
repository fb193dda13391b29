"""The device's side of TUF: which release, if any, may be unpacked.

The order is fixed: signatures, versions and expiry of the metadata; then length and
digest of the packed bytes; then the signed passport; only then is anything unpacked,
into at most the signed size.

TUF keeps its own cache of verified metadata in here and never goes back behind it. Our
own record, forced onto the disk, is the backstop if a power cut takes that cache: the
newest release seen, and the latest time. A device whose clock has fallen back (no
battery) judges expiry by that time. The record cannot run ahead: a time at which the
metadata has expired is never stored.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from tuf.api.metadata import (  # type: ignore[attr-defined]  # no __all__
    Metadata,
    Root,
    TargetFile,
)
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.updater import Updater

from fedge.errors import DataError, MisuseError, RolledBackError, VerificationError
from fedge.release.artifact import unpack_model
from fedge.release.bundle import (
    BASE_URL,
    MAX_METADATA_BYTES,
    BundleFetcher,
    ReleaseBundle,
    check_target_path,
)
from fedge.release.disk import Disk
from fedge.release.foreign import translated
from fedge.release.passport import Passport

DEFAULT_TARGET_PATH = "model.onnx.zst"


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A model file that may be parsed, and what was signed with it."""

    artifact: bytes
    passport: Passport


@dataclass(frozen=True, slots=True)
class _Record:
    """What this device has accepted so far."""

    clock_floor: datetime
    version: int
    digest: str

    @classmethod
    def load(cls, path: Path) -> Self:
        try:
            plain = json.loads(path.read_bytes())
            floor = datetime.fromisoformat(plain["clock_floor"]).astimezone(UTC)
            return cls(floor, int(plain["version"]), str(plain["digest"]))
        except FileNotFoundError:
            return cls(datetime.min.replace(tzinfo=UTC), 0, "")
        except (ValueError, KeyError, TypeError, OverflowError) as exc:
            raise DataError(f"{path} is damaged; provision this device anew") from exc

    def to_bytes(self) -> bytes:
        floor = self.clock_floor.isoformat()
        plain = {"clock_floor": floor, "version": self.version, "digest": self.digest}
        return json.dumps(plain).encode()


class _UpdaterAt(Updater):
    """TUF's client with the time given, where it would ask the system's clock."""

    def __init__(
        self, folder: Path, root: bytes, bundle: ReleaseBundle, at: datetime
    ) -> None:
        # No delegations: our repository has none, so no role name of others is used.
        config = UpdaterConfig(max_delegations=0, targets_max_length=MAX_METADATA_BYTES)
        super().__init__(
            str(folder),
            BASE_URL,
            fetcher=BundleFetcher(bundle),
            config=config,
            bootstrap=root,
        )
        self._trusted_set.reference_time = at


class TrustStore:
    """What one device trusts, in one folder.

    Args:
        folder: created by `provision`.
        disk: how to write.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()
        self._root = folder / "root.json"
        self._record = folder / "accepted.json"
        self._metadata = folder / "metadata"

    @property
    def is_provisioned(self) -> bool:
        """Whether this device has been given a root to trust."""
        return self._root.exists()

    def provision(self, root: bytes) -> None:
        """Trust this first root from now on; the same one again changes nothing.

        The bytes must come over a way that is trusted by other means: with the device's
        image, or at its enrolment.

        Raises:
            VerificationError: not a root that signs itself, or this device already
                trusts another one.
        """
        with translated():
            parsed = Metadata[Root].from_bytes(root)
            if not isinstance(parsed.signed, Root):
                raise VerificationError("provision: this is not root metadata")
            parsed.signed.verify_delegate(
                Root.type, parsed.signed_bytes, parsed.signatures
            )
        if self._root.exists():
            if self._root.read_bytes() != root:
                raise VerificationError(
                    "provision: this device already trusts another root; to change "
                    "its owner, erase its trust folder by hand"
                )
            return
        self._disk.make_folder(self._metadata)
        self._disk.write(self._root, root)

    def verify(
        self,
        bundle: ReleaseBundle,
        *,
        target_path: str = DEFAULT_TARGET_PATH,
        now: datetime | None = None,
    ) -> VerifiedRelease:
        """Return the model in `bundle` if everything about it is as it was signed.

        Guarantee: whatever byte of a bundle is changed, either this raises or the
        result is the same. After a failure our own record is unchanged.

        Args:
            bundle: from anywhere.
            target_path: which target to take.
            now: the time, with time zone; None asks the clock. Never judged earlier
                than at the last success.

        Raises:
            BadSignatureError: not signed by enough of the trusted keys.
            RolledBackError: older than what was accepted, or another release under the
                same number.
            ExpiredError: metadata is past its date (or the device's clock is ahead).
            DigestMismatchError: the artifact or the model is not what was signed.
            VerificationError: anything else that is wrong with the bundle.
            MisuseError: the device was not provisioned.
            DataError: this device's own record is damaged.
        """
        check_target_path(target_path)
        record = _Record.load(self._record)
        now = max(datetime.now(UTC) if now is None else now, record.clock_floor)
        with translated():
            target = self._trusted_target(bundle, target_path, now)
            packed = bundle.targets.get(target_path)
            if packed is None:
                raise VerificationError(f"bundle: {target_path} is missing")
            target.verify_length_and_hashes(packed)
        passport = Passport.from_custom(target.custom)
        _check_not_older(passport, record)
        model = unpack_model(
            packed,
            num_bytes=passport.unpacked_bytes,
            sha256=passport.unpacked_sha256,
        )
        self._accept(_Record(now, passport.version, passport.digest))
        return VerifiedRelease(model, passport)

    def _trusted_target(
        self, bundle: ReleaseBundle, target_path: str, now: datetime
    ) -> TargetFile:
        if not self._root.exists():
            raise MisuseError("verify: provision this device with a root first")
        updater = _UpdaterAt(self._metadata, self._root.read_bytes(), bundle, now)
        updater.refresh()
        target = updater.get_targetinfo(target_path)
        if target is None:
            raise VerificationError(f"release refused: no target {target_path!r}")
        return target

    def _accept(self, record: _Record) -> None:
        # TUF renames its files into place but does not force them onto the disk.
        history = self._metadata / "root_history"
        for path in (*self._metadata.glob("*.json"), *history.glob("*.json")):
            self._disk.sync_file(path)
        self._disk.sync_folder(history)
        self._disk.sync_folder(self._metadata)
        self._disk.write(self._record, record.to_bytes())


def _check_not_older(passport: Passport, record: _Record) -> None:
    if passport.version < record.version:
        raise RolledBackError(
            f"release {passport.version} is older than {record.version}, which this "
            "device has accepted; publish the old model under a new number"
        )
    if passport.version == record.version and passport.digest != record.digest:
        raise RolledBackError(
            f"release {passport.version} was accepted before with other content"
        )
