"""The members of a federation, all of them in one order that everybody agrees on.

A roster's digest is part of every session, so that two members with different rosters
cannot add their masks. What is not in here: who of the roster is asked in a round, and
remembering which rosters were already checked (the caller keeps their digests).

A roster's bytes, little-endian: "fsR1" | number of members u32 | members in ascending
order of uid, each a certificate and a statement.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

from fedge.errors import ConfigError, PeerError
from fedge.secagg.channel import (
    STATEMENT_BYTES,
    ChannelKey,
    ChannelStatement,
    check_statement,
    make_statement,
)
from fedge.secagg.hashing import digest
from fedge.secagg.identity import (
    CERTIFICATE_BYTES,
    Certificate,
    SigningKey,
    check,
    issue,
)

MAX_MEMBERS = 65_536
MEMBER_BYTES = CERTIFICATE_BYTES + STATEMENT_BYTES
ROSTER_MAGIC = b"fsR1"
_HEAD = struct.Struct("<4sI")


@dataclass(frozen=True, slots=True)
class Member:
    """One device: who it is, and the key under which it receives boxes."""

    certificate: Certificate
    statement: ChannelStatement

    @property
    def uid(self) -> int:
        """The device's number, as certified."""
        return self.certificate.uid

    def to_bytes(self) -> bytes:
        """Return the member's only encoding, `MEMBER_BYTES` long."""
        return self.certificate.to_bytes() + self.statement.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read `to_bytes`; nothing is verified here.

        Raises:
            PeerError: wrong length, kind, or a field out of its range.
        """
        if len(data) != MEMBER_BYTES:
            raise PeerError(f"member: {len(data)} bytes, need exactly {MEMBER_BYTES}")
        return cls(
            Certificate.from_bytes(data[:CERTIFICATE_BYTES]),
            ChannelStatement.from_bytes(data[CERTIFICATE_BYTES:]),
        )


class Roster:
    """Members in ascending order of uid, whatever order they were given in.

    Attributes:
        members: one per device; not verified before `check_roster`.
    """

    __slots__ = ("members",)

    def __init__(self, members: Iterable[Member]) -> None:
        self.members = tuple(sorted(members, key=_uid))
        if not 1 <= len(self.members) <= MAX_MEMBERS:
            raise ConfigError(
                f"roster: {len(self.members)} members not in [1, {MAX_MEMBERS}]"
            )

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Member:
        return self.members[index]

    def __repr__(self) -> str:
        return f"Roster({len(self)} members, digest={self.digest().hex()})"

    def index_of(self, uid: int) -> int:
        """Return the position of a member, from 0.

        Raises:
            PeerError: no such member.
        """
        index = bisect_left(self.members, uid, key=_uid)
        if index == len(self.members) or self.members[index].uid != uid:
            raise PeerError(f"uid {uid}: not in the roster of {len(self)} members")
        return index

    def digest(self) -> bytes:
        """Return the digest by which members know they have the same roster."""
        return digest("roster", self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the roster's only encoding."""
        head = _HEAD.pack(ROSTER_MAGIC, len(self.members))
        return head + b"".join(member.to_bytes() for member in self.members)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read `to_bytes`; nothing is verified here.

        Guarantee: whatever is accepted encodes to the same bytes again.

        Raises:
            PeerError: wrong kind, number of members, length or order, or a member that
                cannot be read.
        """
        count = _check_size(data)
        starts = range(_HEAD.size, _HEAD.size + count * MEMBER_BYTES, MEMBER_BYTES)
        members = [Member.from_bytes(data[at : at + MEMBER_BYTES]) for at in starts]
        for before, after in pairwise(members):
            if before.uid >= after.uid:
                raise PeerError(f"roster: uid {after.uid} comes after {before.uid}")
        return cls(members)


def check_roster(roster: Roster, enrolment_public: bytes, *, now: int) -> None:
    """Check every member, and that no two members are the same device.

    Guarantee: afterwards all uids, identity keys and channel keys differ, and each is
    vouched for, directly or through its identity, by the enrolment key.

    Args:
        roster: what the server showed.
        enrolment_public: the enrolment key's public half, 32 bytes.
        now: unix time, seconds.

    Raises:
        PeerError: names the first wrong uid.
    """
    check_distinct(roster)
    for member in roster.members:
        check_member(member, enrolment_public, now=now)


def check_distinct(roster: Roster) -> None:
    """Check that no two members share a uid, an identity key or a channel key.

    Raises:
        PeerError: names the first wrong uid.
    """
    members = roster.members
    certified = ((m.uid, m.certificate.identity_key) for m in members)
    stated = ((m.uid, m.statement.channel_key) for m in members)
    _check_distinct("uid", ((m.uid, m.uid.to_bytes(4, "little")) for m in members))
    _check_distinct("identity key", certified)
    _check_distinct("channel key", stated)


def check_member(member: Member, enrolment_public: bytes, *, now: int) -> None:
    """Check one member's certificate and statement, and that they belong together.

    Raises:
        PeerError: names the uid and what is wrong.
    """
    check(member.certificate, enrolment_public, now=now)
    if member.statement.uid != member.uid:
        raise PeerError(
            f"uid {member.uid}: its channel key belongs to uid {member.statement.uid}"
        )
    check_statement(member.statement, member.certificate.identity_key, now=now)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything one participant signs and opens boxes with.

    Attributes:
        member: the public part, as in the roster.
        identity: secret half of the certificate's identity key.
        channel: secret half of the statement's channel key.
    """

    member: Member
    identity: SigningKey = field(repr=False)
    channel: ChannelKey = field(repr=False)

    def __post_init__(self) -> None:
        certified = self.member.certificate.identity_key
        stated = self.member.statement.channel_key
        if (self.identity.public, self.channel.public) != (certified, stated):
            raise ConfigError(
                f"uid {self.member.uid}: the private keys do not belong to the "
                "certificate and statement; enroll the device again"
            )


def enroll(
    enrolment: SigningKey, *, uid: int, caps: int, not_after: int, epoch: int = 0
) -> Credentials:
    """Make a new device's keys, certificate and statement.

    Args:
        enrolment: the federation owner's key.
        uid: the device's number, 1 to 2**32 - 1.
        caps: bit 0 = has fast AES.
        not_after: last second of both documents' validity, unix time.
        epoch: number of the channel key.

    Raises:
        ConfigError: a value is out of its range.
    """
    identity, channel = SigningKey.generate(), ChannelKey.generate()
    certificate = issue(
        enrolment,
        uid=uid,
        identity_key=identity.public,
        caps=caps,
        not_after=not_after,
    )
    statement = make_statement(
        identity,
        uid=uid,
        epoch=epoch,
        channel_key=channel.public,
        not_after=not_after,
    )
    return Credentials(Member(certificate, statement), identity, channel)


def _uid(member: Member) -> int:
    return member.uid


def _check_size(data: bytes) -> int:
    if len(data) < _HEAD.size:
        raise PeerError(f"roster: {len(data)} bytes, need at least {_HEAD.size}")
    magic, count = _HEAD.unpack_from(data)
    if magic != ROSTER_MAGIC:
        raise PeerError("roster: these bytes are something else")
    if not 1 <= count <= MAX_MEMBERS:
        raise PeerError(f"roster: {count} members not in [1, {MAX_MEMBERS}]")
    need = _HEAD.size + count * MEMBER_BYTES
    if len(data) != need:
        raise PeerError(f"roster: {len(data)} bytes for {count} members, need {need}")
    return int(count)


def _check_distinct(what: str, values: Iterable[tuple[int, bytes]]) -> None:
    owner_by_value: dict[bytes, int] = {}
    for uid, value in values:
        if value in owner_by_value:
            owner = owner_by_value[value]
            raise PeerError(f"uid {uid}: it has the same {what} as uid {owner}")
        owner_by_value[value] = uid
