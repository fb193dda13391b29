import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import ConfigError, PeerError
from fedge.secagg.channel import ChannelKey, make_statement
from fedge.secagg.identity import SigningKey, issue
from fedge.secagg.roster import (
    MAX_MEMBERS,
    MEMBER_BYTES,
    Credentials,
    Member,
    Roster,
    check_distinct,
    check_member,
    check_roster,
    enroll,
)

NOW = 1_800_000_000
ENROLMENT = SigningKey.from_bytes(bytes(range(32)))


def credentials(uid: int, *, not_after: int = NOW) -> Credentials:
    return enroll(ENROLMENT, uid=uid, caps=1, not_after=not_after)


FOUR = [credentials(uid) for uid in (4, 7, 9, 30)]
MEMBERS = [each.member for each in FOUR]


def member_with(
    identity: SigningKey, channel: ChannelKey, *, uid: int = 8, stated_uid: int = 8
) -> Member:
    certificate = issue(
        ENROLMENT, uid=uid, identity_key=identity.public, caps=0, not_after=NOW
    )
    statement = make_statement(
        identity,
        uid=stated_uid,
        epoch=0,
        channel_key=channel.public,
        not_after=NOW,
    )
    return Member(certificate, statement)


def test_a_roster_is_in_order_of_uid() -> None:
    roster = Roster([MEMBERS[2], MEMBERS[0], MEMBERS[3], MEMBERS[1]])
    assert [member.uid for member in roster.members] == [4, 7, 9, 30]
    assert [roster.index_of(uid) for uid in (4, 7, 9, 30)] == [0, 1, 2, 3]
    assert roster[3] == MEMBERS[3]
    assert len(roster) == 4


@pytest.mark.parametrize("uid", [0, 1, 8, 31, 2**32])
def test_somebody_else_has_no_position(uid: int) -> None:
    with pytest.raises(PeerError, match=f"uid {uid}: not in the roster of 4 members"):
        Roster(MEMBERS).index_of(uid)


def test_a_good_roster_is_accepted() -> None:
    check_roster(Roster(MEMBERS), ENROLMENT.public, now=NOW)


def test_a_roster_comes_back_from_its_bytes() -> None:
    roster = Roster(MEMBERS)
    again = Roster.from_bytes(roster.to_bytes())
    assert again.members == roster.members
    assert again.digest() == roster.digest()


def test_the_digest_is_framed_like_every_hash() -> None:
    data, label = Roster(MEMBERS).to_bytes(), b"fedge/sa/1/roster"
    framed = struct.pack("<I", len(label)) + label + struct.pack("<I", len(data)) + data
    assert Roster(MEMBERS).digest() == hashlib.sha256(framed).digest()


def test_any_other_roster_has_another_digest() -> None:
    rosters = [
        Roster(MEMBERS),
        Roster(MEMBERS[:3]),
        Roster([*MEMBERS[:3], credentials(30).member]),
    ]
    assert len({roster.digest() for roster in rosters}) == 3


@pytest.mark.parametrize("count", [0, MAX_MEMBERS + 1])
def test_a_roster_has_one_to_65536_members(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"{count} members not in \[1, 65536\]"):
        Roster(MEMBERS[:1] * count)


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=64), head=st.sampled_from([b"", b"fsR1"]))
def test_random_bytes_are_no_roster(data: bytes, head: bytes) -> None:
    with pytest.raises(PeerError, match="roster: "):
        Roster.from_bytes(head + data)


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 8 + 4 * MEMBER_BYTES - 1))
def test_a_truncated_roster_is_refused(cut: int) -> None:
    with pytest.raises(PeerError, match="roster: "):
        Roster.from_bytes(Roster(MEMBERS).to_bytes()[:cut])


@pytest.mark.parametrize(
    ("count", "body", "message"),
    [
        (0, b"", r"0 members not in \[1, 65536\]"),
        (2**32 - 1, b"", "4294967295 members not in"),
        (1, bytes(MEMBER_BYTES + 1), "for 1 members, need"),
        (2, MEMBERS[1].to_bytes() + MEMBERS[0].to_bytes(), "uid 4 comes after 7"),
        (2, MEMBERS[0].to_bytes() * 2, "uid 4 comes after 4"),
        (1, bytes(MEMBER_BYTES), "something else"),
    ],
)
def test_only_the_one_encoding_is_read(count: int, body: bytes, message: str) -> None:
    with pytest.raises(PeerError, match=message):
        Roster.from_bytes(b"fsR1" + struct.pack("<I", count) + body)


def test_a_member_has_one_length() -> None:
    assert Member.from_bytes(MEMBERS[0].to_bytes()) == MEMBERS[0]
    with pytest.raises(PeerError, match=f"need exactly {MEMBER_BYTES}"):
        Member.from_bytes(MEMBERS[0].to_bytes() + b"\0")


def with_expired_certificate() -> Member:
    identity, channel = SigningKey.generate(), ChannelKey.generate()
    good = member_with(identity, channel)
    certificate = issue(
        ENROLMENT, uid=8, identity_key=identity.public, caps=0, not_after=NOW - 1
    )
    return replace(good, certificate=certificate)


def with_expired_statement() -> Member:
    identity, channel = SigningKey.generate(), ChannelKey.generate()
    statement = make_statement(
        identity, uid=8, epoch=0, channel_key=channel.public, not_after=NOW - 1
    )
    return replace(member_with(identity, channel), statement=statement)


def of_another_federation() -> Member:
    return enroll(SigningKey.generate(), uid=8, caps=0, not_after=NOW).member


def with_the_statement_of_another() -> Member:
    return Member(credentials(8).member.certificate, credentials(8).member.statement)


def with_a_statement_for_another_uid() -> Member:
    return member_with(SigningKey.generate(), ChannelKey.generate(), stated_uid=11)


def with_a_used_identity() -> Member:
    return member_with(FOUR[0].identity, ChannelKey.generate())


def with_a_used_channel_key() -> Member:
    return member_with(SigningKey.generate(), FOUR[0].channel)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (with_expired_certificate, "uid 8: its certificate expired"),
        (with_expired_statement, "uid 8: its channel key expired"),
        (of_another_federation, "uid 8: its certificate is not from this enrolment"),
        (with_the_statement_of_another, "uid 8: .* not signed by its identity"),
        (with_a_statement_for_another_uid, "uid 8: .* belongs to uid 11"),
        (with_a_used_identity, "uid 8: .* same identity key as uid 4"),
        (with_a_used_channel_key, "uid 8: .* same channel key as uid 4"),
    ],
)
def test_one_wrong_member_spoils_the_roster(
    wrong: Callable[[], Member], message: str
) -> None:
    with pytest.raises(PeerError, match=message):
        check_roster(Roster([*MEMBERS, wrong()]), ENROLMENT.public, now=NOW)


def test_two_members_with_one_number_are_refused() -> None:
    roster = Roster([*MEMBERS, credentials(7).member])
    with pytest.raises(PeerError, match="uid 7: it has the same uid as uid 7"):
        check_roster(roster, ENROLMENT.public, now=NOW)


@pytest.mark.parametrize(
    ("double", "message"),
    [
        (with_a_used_identity, "uid 8: it has the same identity key as uid 4"),
        (with_a_used_channel_key, "uid 8: it has the same channel key as uid 4"),
    ],
)
def test_double_members_are_found_without_any_signature(
    double: Callable[[], Member], message: str
) -> None:
    check_distinct(Roster([*MEMBERS, of_another_federation()]))
    with pytest.raises(PeerError, match=message):
        check_distinct(Roster([*MEMBERS, double()]))


def test_a_changed_capability_is_noticed() -> None:
    certificate = replace(MEMBERS[0].certificate, caps=0)
    wrong = replace(MEMBERS[0], certificate=certificate)
    with pytest.raises(PeerError, match="uid 4"):
        check_member(wrong, ENROLMENT.public, now=NOW)


def test_a_new_device_has_keys_of_its_own() -> None:
    one, other = credentials(1), credentials(2)
    publics = {
        key
        for each in (one, other)
        for key in (each.identity.public, each.channel.public)
    }
    assert len(publics) == 4
    check_member(one.member, ENROLMENT.public, now=NOW)
    assert one.member.certificate.has_fast_aes


def test_credentials_show_no_secret() -> None:
    made = credentials(1)
    shown = repr(made)
    assert made.identity.to_bytes().hex() not in shown
    assert repr(made.identity.to_bytes()) not in shown
    assert "identity=" not in shown
    assert "channel=" not in shown


def test_keys_of_another_device_are_no_credentials() -> None:
    with pytest.raises(ConfigError, match="uid 4: the private keys do not belong"):
        Credentials(MEMBERS[0], FOUR[1].identity, FOUR[0].channel)
    with pytest.raises(ConfigError, match="uid 4: the private keys do not belong"):
        Credentials(MEMBERS[0], FOUR[0].identity, FOUR[1].channel)


def test_a_roster_is_shown_by_its_digest() -> None:
    roster = Roster(MEMBERS)
    assert repr(roster) == f"Roster(4 members, digest={roster.digest().hex()})"
