"""Files of the `fedge` command: keys as PEM (PKCS #8), everything else as it is.

What is not in here: passphrases and hardware tokens.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from fedge.errors import ConfigError
from fedge.secagg.channel import ChannelKey
from fedge.secagg.identity import SigningKey

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644
MAX_KEY_FILE_BYTES = 4096


def pem_of_key(key: SigningKey | ChannelKey) -> bytes:
    """Return a private key as PEM, not encrypted."""
    secret = key.to_bytes()
    if isinstance(key, SigningKey):
        private: Ed25519PrivateKey | X25519PrivateKey
        private = Ed25519PrivateKey.from_private_bytes(secret)
    else:
        private = X25519PrivateKey.from_private_bytes(secret)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem_of_public(public: bytes) -> bytes:
    """Return an Ed25519 public key (32 bytes) as PEM."""
    return Ed25519PublicKey.from_public_bytes(public).public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )


def read_signing_key(path: Path) -> SigningKey:
    """Return the Ed25519 private key of a file that only its owner can read.

    Raises:
        ConfigError: not such a file.
    """
    key = _read_private(path)
    if not isinstance(key, SigningKey):
        raise ConfigError(f"{path}: not an Ed25519 private key")
    return key


def read_channel_key(path: Path) -> ChannelKey:
    """Return the X25519 private key of a file that only its owner can read.

    Raises:
        ConfigError: not such a file.
    """
    key = _read_private(path)
    if not isinstance(key, ChannelKey):
        raise ConfigError(f"{path}: not an X25519 private key")
    return key


def read_public(path: Path) -> bytes:
    """Return the Ed25519 public key of a PEM file, 32 bytes.

    Raises:
        ConfigError: not such a file.
    """
    try:
        key = load_pem_public_key(read_bytes(path, max_bytes=MAX_KEY_FILE_BYTES))
    except (ValueError, UnsupportedAlgorithm):
        # No chained cause: the file may be a private key given by mistake.
        raise ConfigError(f"{path}: not a PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: not an Ed25519 public key")
    return key.public_bytes_raw()


def private_from_pem(pem: bytes) -> SigningKey | ChannelKey:
    """Return the private key in a PEM text.

    Raises:
        ConfigError: not an Ed25519 or X25519 private key; the text is not quoted.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # No chained cause: a parser's message could quote the file.
        raise ConfigError("not a PEM private key without passphrase") from None
    match key:
        case Ed25519PrivateKey():
            return SigningKey(key)
        case X25519PrivateKey():
            return ChannelKey(key)
    raise ConfigError("neither an Ed25519 nor an X25519 private key")


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    """Return a file's content, reading no more than it may have.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror})") from exc
    if len(data) > max_bytes:
        raise ConfigError(f"{path}: longer than {max_bytes} bytes")
    return data


def make_new_folder(path: Path) -> None:
    """Create a folder for its owner only, or take an empty one.

    Raises:
        ConfigError: it is not empty, or cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        occupied = any(path.iterdir())
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be created ({exc.strerror})") from exc
    if occupied:
        raise ConfigError(f"{path}: not empty; choose a new folder")


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that is not there yet, onto the disk.

    Guarantee: an existing file is never overwritten, nor a link followed.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror})") from exc


def write_replacing(path: Path, data: bytes) -> None:
    """Write a public file; after a crash it is the old one or the new one.

    Raises:
        ConfigError: it cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        write_new(temporary, data, mode=PUBLIC_MODE)
        temporary.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror})") from exc


def _read_private(path: Path) -> SigningKey | ChannelKey:
    pem = read_bytes(path, max_bytes=MAX_KEY_FILE_BYTES)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others can read this key; run chmod 600 on it")
    try:
        return private_from_pem(pem)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from None
