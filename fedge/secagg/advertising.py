"""What a client signs when it announces its keys, and how others check it."""

from fedge.secagg.hashing import digest
from fedge.secagg.identity import verify_signature
from fedge.secagg.messages import Advertisement, Peer
from fedge.secagg.roster import Roster


def boxes_digest(boxes: tuple[bytes, ...]) -> bytes:
    """Return the hash of all boxes of one sender, 32 bytes."""
    return digest("boxes", *boxes)


def signed_parts(
    session_id: bytes, sender: int, keys: Advertisement | Peer
) -> tuple[bytes, ...]:
    """Return what a client's signature on its keys and boxes covers."""
    boxes = keys.boxes_digest if isinstance(keys, Peer) else boxes_digest(keys.boxes)
    place = sender.to_bytes(4, "little")
    return session_id, place, keys.mask_key, keys.commitment, boxes


def verify_advertisement(
    session_id: bytes, roster: Roster, sender: int, keys: Advertisement | Peer
) -> None:
    """Raise PeerError unless the sender's identity signed these keys and boxes."""
    parts = signed_parts(session_id, sender, keys)
    public = roster.members[sender].certificate.identity_key
    verify_signature(public, keys.signature, "advertise", *parts)
