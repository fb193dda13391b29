"""Who a device is: its Ed25519 identity, and the certificate that says so.

The enrolment key belongs to the owner of the federation, not to the aggregation server,
so that a server can neither invent participants nor put itself between two of them.
What is not in here: channel keys (`channel`), sets of members (`roster`), files.

A certificate's bytes, little-endian: "fsC1" | uid u32 | identity_key 32 | caps u32 |
not_after u64 | signature 64. Source: Ed25519, RFC 8032.
"""

import struct
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from fedge.errors import ConfigError, PeerError
from fedge.secagg.hashing import digest, framed

KEY_BYTES = 32
SIGNATURE_BYTES = 64
MAX_UID = 2**32 - 1
MAX_NOT_AFTER = 253_402_300_799  # the end of the year 9999, in unix seconds
FAST_AES = 1
CERTIFICATE_MAGIC = b"fsC1"
_LAYOUT = struct.Struct("<4sI32sIQ64s")
CERTIFICATE_BYTES = _LAYOUT.size


class SigningKey:
    """An Ed25519 private key; its secret is shown by nothing but `to_bytes`.

    Attributes:
        public: the public key, 32 bytes.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"

    @classmethod
    def generate(cls) -> Self:
        """Return a new key; its secret comes from the operating system."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """Return the key that `to_bytes` gave.

        Raises:
            ConfigError: not 32 bytes.
        """
        if len(secret) != KEY_BYTES:
            raise ConfigError(f"signing key: {len(secret)} bytes, need {KEY_BYTES}")
        return cls(Ed25519PrivateKey.from_private_bytes(secret))

    def to_bytes(self) -> bytes:
        """Return the secret seed, 32 bytes, to be stored by its owner only."""
        return self._key.private_bytes_raw()

    def sign(self, label: str, *parts: bytes) -> bytes:
        """Return the signature, 64 bytes, over the framed label and parts."""
        return self._key.sign(framed(label, *parts))


def verify_signature(
    public: bytes, signature: bytes, label: str, *parts: bytes
) -> None:
    """Check that the owner of `public` has signed these parts under this label.

    Guarantee: another key, label, part, or boundary between parts is refused.

    Raises:
        PeerError: no valid signature; leave its sender out.
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, framed(label, *parts))
    except (InvalidSignature, ValueError) as exc:
        raise PeerError(f"{label}: the signature is not valid") from exc


def fingerprint(public: bytes) -> str:
    """Return 32 hex digits (128 bits) by which people compare public keys."""
    return digest("fingerprint", public)[:16].hex()


@dataclass(frozen=True, slots=True)
class Certificate:
    """The enrolment key's word that a device takes part under a number.

    Attributes:
        uid: the device's number, 1 to 2**32 - 1, never given twice.
        identity_key: its Ed25519 public key, 32 bytes.
        caps: what it can do; bit 0 = has fast AES. Other bits are kept and ignored.
        not_after: last second of its validity, unix time.
        signature: by the enrolment key over the rest, 64 bytes.
    """

    uid: int
    identity_key: bytes
    caps: int
    not_after: int
    signature: bytes

    @property
    def has_fast_aes(self) -> bool:
        """Whether AES is the faster cipher on this device."""
        return bool(self.caps & FAST_AES)

    def to_bytes(self) -> bytes:
        """Return the certificate's only encoding, `CERTIFICATE_BYTES` long."""
        return _body(self) + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read `to_bytes`; the signature is not checked here.

        Guarantee: whatever is accepted encodes to the same bytes again.

        Raises:
            PeerError: wrong length, kind, or a field out of its range.
        """
        if len(data) != CERTIFICATE_BYTES:
            raise PeerError(
                f"certificate: {len(data)} bytes, need exactly {CERTIFICATE_BYTES}"
            )
        magic, uid, identity_key, caps, not_after, signature = _LAYOUT.unpack(data)
        if magic != CERTIFICATE_MAGIC:
            raise PeerError("certificate: these bytes are something else")
        if problem := range_problem(uid, not_after):
            raise PeerError(f"certificate: {problem}")
        return cls(uid, identity_key, caps, not_after, signature)


def issue(
    enrolment: SigningKey, *, uid: int, identity_key: bytes, caps: int, not_after: int
) -> Certificate:
    """Return a certificate signed with the enrolment key.

    Args:
        enrolment: the federation owner's key.
        uid: the device's number, 1 to 2**32 - 1.
        identity_key: the device's Ed25519 public key, 32 bytes.
        caps: bit 0 = has fast AES.
        not_after: last second of validity, unix time.

    Raises:
        ConfigError: a field is out of its range.
    """
    if problem := range_problem(uid, not_after):
        raise ConfigError(f"certificate: {problem}")
    if len(identity_key) != KEY_BYTES or not 0 <= caps < 2**32:
        raise ConfigError(
            f"certificate: need an identity key of {KEY_BYTES} bytes and caps in "
            f"[0, 2**32), got {len(identity_key)} bytes and {caps}"
        )
    unsigned = Certificate(uid, identity_key, caps, not_after, b"")
    signature = enrolment.sign("certificate", _body(unsigned))
    return Certificate(uid, identity_key, caps, not_after, signature)


def check(certificate: Certificate, enrolment_public: bytes, *, now: int) -> None:
    """Check that the enrolment key vouches for this device at `now`.

    Args:
        certificate: what a peer showed.
        enrolment_public: the enrolment key's public half, 32 bytes.
        now: unix time, seconds.

    Raises:
        PeerError: not signed by the enrolment key, or expired.
    """
    try:
        verify_signature(
            enrolment_public, certificate.signature, "certificate", _body(certificate)
        )
    except PeerError as exc:
        raise PeerError(
            f"uid {certificate.uid}: its certificate is not from this enrolment key"
        ) from exc
    if now > certificate.not_after:
        raise PeerError(
            f"uid {certificate.uid}: its certificate expired at "
            f"{certificate.not_after}, now is {now}; enroll the device again"
        )


def range_problem(uid: int, not_after: int) -> str | None:
    """Return what is wrong with a number or an expiry, or None."""
    if not 1 <= uid <= MAX_UID:
        return f"uid {uid} not in [1, {MAX_UID}]"
    if not 1 <= not_after <= MAX_NOT_AFTER:
        return f"not_after {not_after} not in [1, {MAX_NOT_AFTER}]"
    return None


def _body(certificate: Certificate) -> bytes:
    return _LAYOUT.pack(
        CERTIFICATE_MAGIC,
        certificate.uid,
        certificate.identity_key,
        certificate.caps,
        certificate.not_after,
        b"",
    )[:-SIGNATURE_BYTES]
