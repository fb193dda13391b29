"""Participants whose keys are always the same, certified by one owner."""

from functools import cache

from fedge.secagg.channel import ChannelKey, make_statement
from fedge.secagg.hashing import digest
from fedge.secagg.identity import SigningKey, issue
from fedge.secagg.roster import Credentials, Member

NOW = 1_800_000_000
NOT_AFTER = NOW + 86_400
OWNER = SigningKey.from_bytes(bytes(range(32)))


@cache
def person(uid: int, *, fast: bool = True) -> Credentials:
    """Return a participant; its keys follow from the uid, and so do graphs."""
    number = uid.to_bytes(4, "little")
    identity = SigningKey.from_bytes(digest("test identity", number))
    channel = ChannelKey.from_bytes(digest("test channel", number))
    certificate = issue(
        OWNER,
        uid=uid,
        identity_key=identity.public,
        caps=int(fast),
        not_after=NOT_AFTER,
    )
    statement = make_statement(
        identity, uid=uid, epoch=0, channel_key=channel.public, not_after=NOT_AFTER
    )
    return Credentials(Member(certificate, statement), identity, channel)
