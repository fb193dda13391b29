"""Private keys of a simulation or a small site, one PEM file each.

A larger site keeps its root keys off the machine that signs releases: copy the folder,
then delete `root-*.pem` here; they are needed again only to renew the root. What is not
in here: rotating a root key, passphrases, hardware tokens.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import (  # type: ignore[attr-defined]  # no __all__
    CryptoSigner,
)

from fedge.errors import ConfigError

ONLINE_ROLES = ("targets", "snapshot", "timestamp")
_SETTINGS = "keys.json"
_NAME = re.compile(r"root-[1-9][0-9]*|targets|snapshot|timestamp")


@dataclass(frozen=True, slots=True, repr=False)
class KeyRing:
    """The private keys at hand, by name ("root-1", ..., "targets", ...).

    Attributes:
        signers: one Ed25519 signer per key.
        root_threshold: signatures that a root needs.
    """

    signers: Mapping[str, CryptoSigner]
    root_threshold: int

    def __repr__(self) -> str:
        return f"KeyRing({sorted(self.signers)}, root_threshold={self.root_threshold})"

    def of_role(self, role: str) -> list[CryptoSigner]:
        """Return the keys of a TUF role that are at hand, in the order of their names.

        Raises:
            ConfigError: too few to sign for the role.
        """
        names = [name for name in sorted(self.signers) if name.split("-")[0] == role]
        need = self.root_threshold if role == "root" else 1
        if len(names) < need:
            raise ConfigError(
                f"keys: {len(names)} private keys of the role {role!r} are here, need "
                f"{need}; bring them back from where they are kept"
            )
        return [self.signers[name] for name in names]

    @classmethod
    def create(cls, folder: Path, *, root_keys: int, root_threshold: int) -> "KeyRing":
        """Make new Ed25519 keys in `folder`, each file readable by its owner only.

        Guarantee: an existing key is never overwritten.

        Raises:
            ConfigError: the threshold does not fit, or the folder already holds keys.
        """
        if not 1 <= root_threshold <= root_keys:
            raise ConfigError(f"root_threshold: {root_threshold} not in [1, root_keys]")
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"keys: {folder} is not empty; choose a new folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = [f"root-{index + 1}" for index in range(root_keys)] + [*ONLINE_ROLES]
        signers = {name: CryptoSigner.generate_ed25519() for name in names}
        for name, signer in signers.items():
            _write_new(folder / f"{name}.pem", signer.private_bytes)
        settings = {"root_threshold": root_threshold}
        _write_new(folder / _SETTINGS, json.dumps(settings).encode())
        return cls(signers, root_threshold)

    @classmethod
    def load(cls, folder: Path) -> "KeyRing":
        """Return the keys that `create` wrote, or those of them that are still there.

        Raises:
            ConfigError: no keys here, a damaged file, or one that others can read.
        """
        try:
            settings = json.loads((folder / _SETTINGS).read_bytes())
            threshold = int(settings["root_threshold"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"keys: {folder} holds no complete set of keys") from exc
        paths = [path for path in folder.glob("*.pem") if _NAME.fullmatch(path.stem)]
        return cls({path.stem: _load_signer(path) for path in paths}, threshold)


def _write_new(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _load_signer(path: Path) -> CryptoSigner:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"keys: others can read {path}; run chmod 600 on it")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # No chained cause: a parser's message could quote the file.
        raise ConfigError(f"keys: {path} is not a PEM private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"keys: {path} is not an Ed25519 key")
    return CryptoSigner(key)
