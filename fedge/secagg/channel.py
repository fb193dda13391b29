"""Private channels between two members: who they are with, their key, their boxes.

A channel key is certified by its owner's identity and serves for one epoch, so that no
round needs a trip to exchange keys; once its owner erases it, old boxes stay closed.
What is not in here: the fresh keys of one session's masks.

A statement's bytes, little-endian: "fsS1" | uid u32 | epoch u32 | channel_key 32 |
not_after u64 | signature 64. Source: X25519, RFC 7748; ChaCha20-Poly1305, RFC 8439.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedge.errors import ConfigError, MisuseError, PeerError
from fedge.secagg.hashing import derive_key, digest
from fedge.secagg.identity import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    SigningKey,
    range_problem,
    verify_signature,
)

MAX_EPOCH = 2**32 - 1
NONCE_BYTES = 12
BOX_OVERHEAD_BYTES = NONCE_BYTES + 16
STATEMENT_MAGIC = b"fsS1"
_LAYOUT = struct.Struct("<4sII32sQ64s")
STATEMENT_BYTES = _LAYOUT.size


class ChannelKey:
    """An X25519 private key; its secret is shown by nothing but `to_bytes`.

    Attributes:
        public: the public key, 32 bytes.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"ChannelKey(public={self.public.hex()})"

    @classmethod
    def generate(cls) -> Self:
        """Return a new key; its secret comes from the operating system."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """Return the key that `to_bytes` gave.

        Raises:
            ConfigError: not 32 bytes.
        """
        if len(secret) != KEY_BYTES:
            raise ConfigError(f"channel key: {len(secret)} bytes, need {KEY_BYTES}")
        return cls(X25519PrivateKey.from_private_bytes(secret))

    def to_bytes(self) -> bytes:
        """Return the secret scalar, 32 bytes, to be stored by its owner only."""
        return self._key.private_bytes_raw()

    def exchange(self, peer_public: bytes) -> bytes:
        """Return the secret shared with the owner of `peer_public`, 32 bytes.

        Raises:
            PeerError: not 32 bytes, or a point of low order, which would make the
                secret zero and known to everybody.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError as exc:
            raise PeerError("the peer's X25519 key allows no secret") from exc


@dataclass(frozen=True, slots=True)
class ChannelStatement:
    """A device's word about its own channel key.

    Attributes:
        uid: the device's number, as in its certificate.
        epoch: which of its channel keys this is, 0 to 2**32 - 1, counting up.
        channel_key: X25519 public key, 32 bytes.
        not_after: last second of its validity, unix time.
        signature: by the device's identity over the rest, 64 bytes.
    """

    uid: int
    epoch: int
    channel_key: bytes
    not_after: int
    signature: bytes

    def to_bytes(self) -> bytes:
        """Return the statement's only encoding, `STATEMENT_BYTES` long."""
        return _body(self) + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read `to_bytes`; the signature is not checked here.

        Guarantee: whatever is accepted encodes to the same bytes again.

        Raises:
            PeerError: wrong length, kind, or a field out of its range.
        """
        if len(data) != STATEMENT_BYTES:
            raise PeerError(
                f"statement: {len(data)} bytes, need exactly {STATEMENT_BYTES}"
            )
        magic, uid, epoch, channel_key, not_after, signature = _LAYOUT.unpack(data)
        if magic != STATEMENT_MAGIC:
            raise PeerError("statement: these bytes are something else")
        if problem := range_problem(uid, not_after):
            raise PeerError(f"statement: {problem}")
        return cls(uid, epoch, channel_key, not_after, signature)


def make_statement(
    identity: SigningKey, *, uid: int, epoch: int, channel_key: bytes, not_after: int
) -> ChannelStatement:
    """Return a statement about a channel key, signed with the device's identity.

    Raises:
        ConfigError: a field is out of its range.
    """
    if problem := range_problem(uid, not_after):
        raise ConfigError(f"statement: {problem}")
    if len(channel_key) != KEY_BYTES or not 0 <= epoch <= MAX_EPOCH:
        raise ConfigError(
            f"statement: need a channel key of {KEY_BYTES} bytes and an epoch in "
            f"[0, {MAX_EPOCH}], got {len(channel_key)} bytes and {epoch}"
        )
    unsigned = ChannelStatement(uid, epoch, channel_key, not_after, b"")
    signature = identity.sign("statement", _body(unsigned))
    return ChannelStatement(uid, epoch, channel_key, not_after, signature)


def check_statement(
    statement: ChannelStatement, identity_key: bytes, *, now: int
) -> None:
    """Check that this identity vouches for the channel key at `now` (unix seconds).

    Raises:
        PeerError: not signed by this identity, or expired.
    """
    try:
        verify_signature(
            identity_key, statement.signature, "statement", _body(statement)
        )
    except PeerError as exc:
        raise PeerError(
            f"uid {statement.uid}: its channel key is not signed by its identity"
        ) from exc
    if now > statement.not_after:
        raise PeerError(
            f"uid {statement.uid}: its channel key expired at {statement.not_after}, "
            f"now is {now}"
        )


def pair_key(
    own: ChannelKey, own_statement: ChannelStatement, peer_statement: ChannelStatement
) -> bytes:
    """Return the key of the channel between two members, 32 bytes.

    The statements must have been checked (`roster.check_roster`).

    Guarantee: both ends derive the same key; another pair, or another statement of
    either end, gives another.

    Raises:
        MisuseError: `own_statement` is about another key than `own`.
        PeerError: the peer has our uid, or its key allows no secret.
    """
    if own.public != own_statement.channel_key:
        raise MisuseError("the own statement is not about the own channel key")
    if own_statement.uid == peer_statement.uid:
        raise PeerError(f"uid {peer_statement.uid}: the peer has our own uid")
    pair = sorted((own_statement, peer_statement), key=lambda s: s.uid)
    salt = digest("statements", *(statement.to_bytes() for statement in pair))
    secret = own.exchange(peer_statement.channel_key)
    return derive_key(secret, salt=salt, label="chan")


def seal(
    key: bytes,
    plaintext: bytes,
    *,
    associated: bytes,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Return nonce 12 | ciphertext | tag 16, which only the key's other owner opens.

    Args:
        key: a channel's key, 32 bytes.
        plaintext: what to close in.
        associated: what the box is for; opening it needs the same.
        random_bytes: gives that many random bytes. One channel key may close up to
            2**32 boxes before two random nonces are likely enough to meet (2**-33).

    Raises:
        MisuseError: the key or the nonce has a wrong length.
    """
    cipher, nonce = _cipher(key), random_bytes(NONCE_BYTES)
    if len(nonce) != NONCE_BYTES:
        raise MisuseError(f"nonce: {len(nonce)} bytes, need {NONCE_BYTES}")
    return nonce + cipher.encrypt(nonce, plaintext, associated)


def open_box(key: bytes, box: bytes, *, associated: bytes) -> bytes:
    """Return what `seal` closed in.

    Guarantee: a box that was changed, or closed with another key or for another
    purpose, is refused; the error does not say which.

    Raises:
        PeerError: the box does not open.
        MisuseError: the key has a wrong length.
    """
    cipher = _cipher(key)
    try:
        return cipher.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):
        # No chained cause: it would tell the ways to fail apart.
        raise PeerError("a box does not open") from None


def _cipher(key: bytes) -> ChaCha20Poly1305:
    if len(key) != KEY_BYTES:
        raise MisuseError(f"channel: a key of {len(key)} bytes, need {KEY_BYTES}")
    return ChaCha20Poly1305(key)


def _body(statement: ChannelStatement) -> bytes:
    return _LAYOUT.pack(
        STATEMENT_MAGIC,
        statement.uid,
        statement.epoch,
        statement.channel_key,
        statement.not_after,
        b"",
    )[:-SIGNATURE_BYTES]
