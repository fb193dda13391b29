"""The masks of a session: which key, which cipher, which sign.

Source: Bell et al. (2020), figure 1: y_i = q_i + G(b_i) + sum over j < i of G(s_ij)
minus sum over j > i of G(s_ij), over the neighbours j of i.
"""

import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)

from fedge.errors import PeerError
from fedge.secagg.hashing import derive_key, digest
from fedge.secagg.identity import FAST_AES, Certificate
from fedge.secagg.keystream import MaskSeed, Suite

_PAIR = struct.Struct("<IIB")
_SELF = struct.Struct("<IB")


def commitment_of(seed: bytes, *, session_id: bytes, index: int) -> bytes:
    """Return the commitment to a self mask's seed, 32 bytes."""
    return digest("b", session_id, struct.pack("<I", index), seed)


def self_mask(
    seed: bytes, certificate: Certificate, *, session_id: bytes, index: int
) -> MaskSeed:
    """Return the mask that a client adds for itself."""
    suite = _suite(certificate, certificate)
    info = _SELF.pack(index, suite)
    key = derive_key(seed, salt=session_id, label="self", info=info)
    return MaskSeed(key, suite, 1)


def pair_mask(
    own_secret: X25519PrivateKey,
    peer_public: bytes,
    own: tuple[int, Certificate],
    peer: tuple[int, Certificate],
    *,
    session_id: bytes,
) -> MaskSeed:
    """Return the mask that `own` adds for its neighbour `peer`.

    Guarantee: both ends derive the same key, with opposite signs.

    Args:
        own_secret: private mask key of this session.
        peer_public: the neighbour's mask key, 32 bytes.
        own: this client's place in the roster and certificate.
        peer: the neighbour's.
        session_id: of the session.

    Raises:
        PeerError: the neighbour's key is not a usable point.
    """
    (own_index, own_certificate), (peer_index, peer_certificate) = own, peer
    own_public = own_secret.public_key().public_bytes_raw()
    try:
        shared = own_secret.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError as exc:
        raise PeerError(f"mask key of participant {peer_index} is unusable") from exc
    suite = _suite(own_certificate, peer_certificate)
    ends = sorted([(own_index, own_public), (peer_index, peer_public)])
    info = _PAIR.pack(ends[0][0], ends[1][0], suite) + ends[0][1] + ends[1][1]
    key = derive_key(shared, salt=session_id, label="pair", info=info)
    return MaskSeed(key, suite, 1 if peer_index < own_index else -1)


def _suite(one: Certificate, other: Certificate) -> Suite:
    """AES where both have instructions for it; ChaCha20 is faster everywhere else."""
    fast = one.caps & other.caps & FAST_AES
    return Suite.AES256_CTR if fast else Suite.CHACHA20
