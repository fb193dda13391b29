"""The messages of a session as bytes: fixed layouts, read strictly.

Lengths follow from the session's numbers, so nothing in a message can ask for memory.
Integers are little-endian. What the fields mean is in `client.py` and `server.py`.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from fedge.errors import PeerError

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SHARE_BYTES = 33
BOX_PLAINTEXT_BYTES = 2 + 2 * SHARE_BYTES
BOX_BYTES = 12 + BOX_PLAINTEXT_BYTES + 16
_INDEX = struct.Struct("<I")
_POSITION = struct.Struct("<H")
_PEER_BYTES = 4 + 3 * KEY_BYTES + SIGNATURE_BYTES + BOX_BYTES


def _exactly(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        raise PeerError(f"{what}: {len(data)} bytes, need {size}")
    return data


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A client's keys and shares for this session (trip 1, up).

    Attributes:
        mask_key: X25519 public key of this session, 32 bytes.
        commitment: to the self mask's seed, 32 bytes.
        boxes: one sealed pair of shares per neighbour, in the order of the sender's
            neighbours.
        signature: of the sender's identity over all of it, 64 bytes.
    """

    mask_key: bytes
    commitment: bytes
    boxes: tuple[bytes, ...]
    signature: bytes

    def to_bytes(self) -> bytes:
        """Return the message."""
        return b"".join((self.mask_key, self.commitment, *self.boxes, self.signature))

    @classmethod
    def from_bytes(cls, data: bytes, *, degree: int) -> Self:
        """Read the message of a client with `degree` neighbours."""
        head = 2 * KEY_BYTES
        size = head + degree * BOX_BYTES + SIGNATURE_BYTES
        _exactly(data, size, "advertisement")
        boxes = tuple(
            data[start : start + BOX_BYTES]
            for start in range(head, head + degree * BOX_BYTES, BOX_BYTES)
        )
        return cls(
            data[:KEY_BYTES], data[KEY_BYTES:head], boxes, data[-SIGNATURE_BYTES:]
        )


@dataclass(frozen=True, slots=True)
class Shares:
    """What is inside a box: the recipient's shares of the sender's two secrets.

    Attributes:
        position: x of the shares: the recipient's place among the sender's neighbours,
            from 1.
        seed_share: of the self mask's seed, 33 bytes.
        key_share: of the private mask key, 33 bytes.
    """

    position: int
    seed_share: bytes = field(repr=False)
    key_share: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the plaintext of a box."""
        return _POSITION.pack(self.position) + self.seed_share + self.key_share

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the plaintext of a box."""
        _exactly(data, BOX_PLAINTEXT_BYTES, "shares")
        (position,) = _POSITION.unpack_from(data)
        middle = _POSITION.size + SHARE_BYTES
        return cls(position, data[_POSITION.size : middle], data[middle:])


@dataclass(frozen=True, slots=True)
class Peer:
    """What a client is told of one neighbour (trip 2, down).

    Attributes:
        index: the neighbour's place in the roster.
        mask_key, commitment, signature: see `Advertisement`.
        boxes_digest: hash of all the neighbour's boxes, 32 bytes.
        box: the neighbour's box for this client.
    """

    index: int
    mask_key: bytes
    commitment: bytes
    boxes_digest: bytes
    signature: bytes
    box: bytes

    def to_bytes(self) -> bytes:
        """Return one entry of the message."""
        return b"".join(
            (
                _INDEX.pack(self.index),
                self.mask_key,
                self.commitment,
                self.boxes_digest,
                self.signature,
                self.box,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read one entry of the message."""
        _exactly(data, _PEER_BYTES, "peer")
        (index,) = _INDEX.unpack_from(data)
        at = _INDEX.size
        keys = [data[at + i * KEY_BYTES : at + (i + 1) * KEY_BYTES] for i in range(3)]
        at += 3 * KEY_BYTES
        signature, box = data[at : at + SIGNATURE_BYTES], data[at + SIGNATURE_BYTES :]
        return cls(index, keys[0], keys[1], keys[2], signature, box)


def peers_to_bytes(peers: Sequence[Peer]) -> bytes:
    """Return the trip-2 message to one client."""
    return b"".join(peer.to_bytes() for peer in peers)


def peers_from_bytes(data: bytes, *, degree: int) -> tuple[Peer, ...]:
    """Read the trip-2 message; at most one entry per neighbour.

    Raises:
        PeerError: wrong length, or an index occurs twice.
    """
    count, rest = divmod(len(data), _PEER_BYTES)
    if rest or count > degree:
        raise PeerError(f"peers: {len(data)} bytes are not up to {degree} entries")
    peers = tuple(
        Peer.from_bytes(data[i * _PEER_BYTES : (i + 1) * _PEER_BYTES])
        for i in range(count)
    )
    if len({peer.index for peer in peers}) != count:
        raise PeerError("peers: an index occurs twice")
    return peers


@dataclass(frozen=True, slots=True)
class UnmaskRequest:
    """Which clients survived (trip 3, down).

    Attributes:
        survivors: bitmap over the roster.
        signatures: of survivors on that bitmap, by roster index; malicious mode only.
    """

    survivors: bytes
    signatures: Mapping[int, bytes]

    def to_bytes(self) -> bytes:
        """Return the message."""
        signed = [
            _INDEX.pack(index) + signature
            for index, signature in sorted(self.signatures.items())
        ]
        return self.survivors + b"".join(signed)

    @classmethod
    def from_bytes(cls, data: bytes, *, num_participants: int) -> Self:
        """Read the message; raise PeerError if it is malformed."""
        size, entry = (num_participants + 7) // 8, _INDEX.size + SIGNATURE_BYTES
        count, rest = divmod(len(data) - size, entry)
        if rest or not 0 <= count <= num_participants:
            raise PeerError(f"unmask request: {len(data)} bytes is not its length")
        signatures: dict[int, bytes] = {}
        for start in range(size, len(data), entry):
            (index,) = _INDEX.unpack_from(data, start)
            if index in signatures or index >= num_participants:
                raise PeerError(f"unmask request: signer {index} twice or unknown")
            signatures[index] = data[start + _INDEX.size : start + entry]
        return cls(data[:size], signatures)


def shares_to_bytes(shares: Mapping[int, bytes]) -> bytes:
    """Return the trip-3 answer: one share per peer, by the peer's roster index."""
    return b"".join(_INDEX.pack(i) + share for i, share in sorted(shares.items()))


def shares_from_bytes(data: bytes, *, degree: int) -> dict[int, bytes]:
    """Read the trip-3 answer; raise PeerError if it is malformed."""
    entry = _INDEX.size + SHARE_BYTES
    count, rest = divmod(len(data), entry)
    if rest or count > degree:
        raise PeerError(f"shares: {len(data)} bytes are not up to {degree} entries")
    shares: dict[int, bytes] = {}
    for start in range(0, len(data), entry):
        (index,) = _INDEX.unpack_from(data, start)
        if index in shares:
            raise PeerError(f"shares: peer {index} occurs twice")
        shares[index] = data[start + _INDEX.size : start + entry]
    return shares
