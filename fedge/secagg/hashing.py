"""The protocol's hash and key derivation, with every input in its place.

Each use has a label, and each part is preceded by its length, so that no two different
inputs are ever the same bytes. Integers are little-endian.

Source: SHA-256 (FIPS 180-4), HKDF-SHA256 (RFC 5869).
"""

import hashlib
import struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DIGEST_BYTES = 32
_DOMAIN = b"fedge/sa/1/"


def framed(label: str, *parts: bytes) -> bytes:
    """Return label and parts as one unambiguous byte string.

    Guarantee: different labels or parts give different results.
    """
    head = _DOMAIN + label.encode("ascii")
    return b"".join(struct.pack("<I", len(p)) + p for p in (head, *parts))


def digest(label: str, *parts: bytes) -> bytes:
    """Return the SHA-256 of the framed parts, 32 bytes."""
    return hashlib.sha256(framed(label, *parts)).digest()


def derive_key(secret: bytes, *, salt: bytes, label: str, info: bytes = b"") -> bytes:
    """Return a 32-byte key derived from `secret` for this label, salt and info."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=salt, info=framed(label, info))
    return kdf.derive(secret)
