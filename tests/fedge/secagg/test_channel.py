from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import ConfigError, MisuseError, PeerError
from fedge.secagg.channel import (
    BOX_OVERHEAD_BYTES,
    STATEMENT_BYTES,
    ChannelKey,
    ChannelStatement,
    check_statement,
    make_statement,
    open_box,
    pair_key,
    seal,
)
from fedge.secagg.identity import SigningKey

NOW = 1_800_000_000
# RFC 7748, section 6.1.
ALICE = ChannelKey.from_bytes(
    bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
)
BOB = ChannelKey.from_bytes(
    bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
)
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
# Points of low order (Wycheproof, x25519_test.json): the shared secret would be zero.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
IDENTITY = SigningKey.from_bytes(bytes(range(32)))
KEY = bytes(range(0x80, 0xA0))


def statement(
    channel: ChannelKey = ALICE, *, uid: int = 1, epoch: int = 0, not_after: int = NOW
) -> ChannelStatement:
    return make_statement(
        IDENTITY,
        uid=uid,
        epoch=epoch,
        channel_key=channel.public,
        not_after=not_after,
    )


def test_the_exchange_is_that_of_rfc_7748() -> None:
    assert ALICE.exchange(BOB.public).hex() == SHARED
    assert BOB.exchange(ALICE.public).hex() == SHARED


def test_a_thousand_exchanges_end_where_rfc_7748_says() -> None:
    scalar = point = (9).to_bytes(32, "little")
    for _ in range(1000):
        scalar, point = ChannelKey.from_bytes(scalar).exchange(point), scalar
    expected = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"
    assert scalar.hex() == expected


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_key_of_low_order_is_refused(point: str) -> None:
    with pytest.raises(PeerError, match="allows no secret"):
        ALICE.exchange(bytes.fromhex(point))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(PeerError, match="allows no secret"):
        ALICE.exchange(bytes(length))
    with pytest.raises(ConfigError, match=f"{length} bytes, need 32"):
        ChannelKey.from_bytes(bytes(length))


def test_new_keys_differ_and_show_no_secret() -> None:
    one, other = ChannelKey.generate(), ChannelKey.generate()
    assert one.public != other.public
    assert ChannelKey.from_bytes(one.to_bytes()).public == one.public
    assert one.to_bytes().hex() not in repr(one)


def test_both_ends_derive_the_same_key() -> None:
    one, other = statement(ALICE, uid=1), statement(BOB, uid=2)
    key = pair_key(ALICE, one, other)
    assert key == pair_key(BOB, other, one)
    assert len(key) == 32


def test_the_key_of_a_pair_is_frozen() -> None:
    key = pair_key(ALICE, statement(ALICE, uid=1), statement(BOB, uid=2))
    assert (
        key.hex() == "51abf0f86bc8c96ef9971ad0e1e8a23e22a1e78b4f05ba01b7ed598ce22fa4c9"
    )


def test_another_pair_or_statement_gives_another_key() -> None:
    own = statement(ALICE, uid=1)
    peers = [
        statement(BOB, uid=2),
        statement(BOB, uid=3),
        statement(BOB, uid=2, epoch=1),
        statement(BOB, uid=2, not_after=NOW + 1),
        statement(ChannelKey.generate(), uid=2),
    ]
    assert len({pair_key(ALICE, own, peer) for peer in peers}) == len(peers)


def test_no_key_is_derived_with_ourselves() -> None:
    with pytest.raises(PeerError, match="uid 1: the peer has our own uid"):
        pair_key(ALICE, statement(ALICE, uid=1), statement(BOB, uid=1))


def test_no_key_is_derived_from_a_peer_key_of_low_order() -> None:
    peer = replace(statement(BOB, uid=2), channel_key=bytes(32))
    with pytest.raises(PeerError, match="allows no secret"):
        pair_key(ALICE, statement(ALICE, uid=1), peer)


def test_a_key_goes_with_its_own_statement_only() -> None:
    with pytest.raises(MisuseError, match="not about the own channel key"):
        pair_key(BOB, statement(ALICE, uid=1), statement(BOB, uid=2))


def test_a_statement_is_good_until_its_last_second() -> None:
    check_statement(statement(not_after=NOW), IDENTITY.public, now=NOW)
    with pytest.raises(PeerError, match=f"uid 1: its channel key expired at {NOW}"):
        check_statement(statement(not_after=NOW), IDENTITY.public, now=NOW + 1)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(statement(), uid=2),
        replace(statement(), epoch=1),
        replace(statement(), channel_key=BOB.public),
        replace(statement(), not_after=NOW + 1),
        replace(statement(), signature=bytes(64)),
    ],
)
def test_a_changed_statement_is_refused(wrong: ChannelStatement) -> None:
    with pytest.raises(PeerError, match="not signed by its identity"):
        check_statement(wrong, IDENTITY.public, now=NOW)


def test_a_statement_of_another_identity_is_refused() -> None:
    with pytest.raises(PeerError, match="not signed by its identity"):
        check_statement(statement(), SigningKey.generate().public, now=NOW)


@settings(deadline=None, max_examples=30)
@given(uid=st.integers(1, 2**32 - 1), epoch=st.integers(0, 2**32 - 1))
def test_a_statement_comes_back_from_its_bytes(uid: int, epoch: int) -> None:
    made = statement(uid=uid, epoch=epoch)
    assert len(made.to_bytes()) == STATEMENT_BYTES
    assert ChannelStatement.from_bytes(made.to_bytes()) == made


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=2 * STATEMENT_BYTES))
def test_random_bytes_are_no_statement(data: bytes) -> None:
    with pytest.raises(PeerError, match="statement: "):
        ChannelStatement.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        statement().to_bytes()[:-1],
        statement().to_bytes() + b"\0",
        b"fsC1" + statement().to_bytes()[4:],
        replace(statement(), uid=0).to_bytes(),
        replace(statement(), not_after=2**64 - 1).to_bytes(),
    ],
)
def test_a_damaged_statement_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError, match="statement: "):
        ChannelStatement.from_bytes(data)


@pytest.mark.parametrize(
    ("uid", "epoch", "key", "not_after"),
    [
        (0, 0, ALICE.public, NOW),
        (1, -1, ALICE.public, NOW),
        (1, 2**32, ALICE.public, NOW),
        (1, 0, b"short", NOW),
        (1, 0, ALICE.public, 0),
    ],
)
def test_a_field_out_of_range_is_not_signed(
    uid: int, epoch: int, key: bytes, not_after: int
) -> None:
    with pytest.raises(ConfigError, match="statement: "):
        make_statement(
            IDENTITY, uid=uid, epoch=epoch, channel_key=key, not_after=not_after
        )


def test_a_box_is_that_of_rfc_8439() -> None:
    # Section 2.8.2.
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one "
        b"tip for the future, sunscreen would be it."
    )
    nonce = bytes.fromhex("070000004041424344454647")
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    box = seal(KEY, text, associated=associated, random_bytes=lambda _: nonce)
    assert box[:12] == nonce
    assert box[12:28].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert box[-18:].hex() == "6116" + "1ae10b594f09e26a7e902ecbd0600691"


@settings(deadline=None, max_examples=50)
@given(text=st.binary(max_size=100), associated=st.binary(max_size=20))
def test_a_box_opens_to_what_was_closed_in(text: bytes, associated: bytes) -> None:
    box = seal(KEY, text, associated=associated)
    assert len(box) == len(text) + BOX_OVERHEAD_BYTES
    assert open_box(KEY, box, associated=associated) == text


def test_equal_texts_give_different_boxes() -> None:
    boxes = {seal(KEY, b"text", associated=b"") for _ in range(10)}
    assert len(boxes) == 10


@settings(deadline=None, max_examples=100)
@given(bit=st.integers(0, (4 + BOX_OVERHEAD_BYTES) * 8 - 1))
def test_no_bit_of_a_box_can_be_flipped(bit: int) -> None:
    box = bytearray(seal(KEY, b"text", associated=b"for"))
    box[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PeerError, match=r"^a box does not open$"):
        open_box(KEY, bytes(box), associated=b"for")


@pytest.mark.parametrize(
    ("key", "length", "associated"),
    [
        (KEY, 32, b"for another"),
        (bytes(32), 32, b"for"),
        (KEY, 31, b"for"),
        (KEY, 27, b"for"),
        (KEY, 11, b"for"),
        (KEY, 0, b"for"),
    ],
)
def test_all_ways_to_fail_look_alike(
    key: bytes, length: int, associated: bytes
) -> None:
    box = seal(KEY, b"text", associated=b"for")[:length]
    with pytest.raises(PeerError, match=r"^a box does not open$") as caught:
        open_box(key, box, associated=associated)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_wrong_key_or_nonce_length_is_our_own_mistake() -> None:
    with pytest.raises(MisuseError, match="a key of 31 bytes"):
        seal(bytes(31), b"", associated=b"")
    with pytest.raises(MisuseError, match="a key of 33 bytes"):
        open_box(bytes(33), bytes(28), associated=b"")
    with pytest.raises(MisuseError, match="nonce: 8 bytes"):
        seal(KEY, b"", associated=b"", random_bytes=lambda _: bytes(8))
