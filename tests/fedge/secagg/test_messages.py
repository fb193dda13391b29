from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import PeerError
from fedge.secagg.messages import (
    BOX_BYTES,
    SHARE_BYTES,
    Advertisement,
    Peer,
    Shares,
    UnmaskRequest,
    peers_from_bytes,
    peers_to_bytes,
    shares_from_bytes,
    shares_to_bytes,
)

KEYS = st.binary(min_size=32, max_size=32)
SIGNATURES = st.binary(min_size=64, max_size=64)
BOXES = st.binary(min_size=BOX_BYTES, max_size=BOX_BYTES)
SHARES = st.binary(min_size=SHARE_BYTES, max_size=SHARE_BYTES)
INDICES = st.integers(0, 2**32 - 1)
PEERS = st.builds(Peer, INDICES, KEYS, KEYS, KEYS, SIGNATURES, BOXES)
DEGREE, SIZE = 3, 11


def peer_at(index: int) -> Peer:
    key = bytes(32)
    return Peer(index, key, key, key, bytes(64), bytes(BOX_BYTES))


PARSERS: dict[str, Callable[[bytes], object]] = {
    "advertisement": lambda data: Advertisement.from_bytes(data, degree=DEGREE),
    "peers": lambda data: peers_from_bytes(data, degree=DEGREE),
    "unmask": lambda data: UnmaskRequest.from_bytes(data, num_participants=SIZE),
    "shares": lambda data: shares_from_bytes(data, degree=DEGREE),
    "box": Shares.from_bytes,
}


@settings(deadline=None, max_examples=20)
@given(KEYS, KEYS, st.lists(BOXES, max_size=4), SIGNATURES)
def test_an_advertisement_is_read_as_it_was_written(
    key: bytes, commitment: bytes, boxes: list[bytes], signature: bytes
) -> None:
    sent = Advertisement(key, commitment, tuple(boxes), signature)
    assert Advertisement.from_bytes(sent.to_bytes(), degree=len(boxes)) == sent


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16 - 1), SHARES, SHARES)
def test_what_is_in_a_box_is_read_as_it_was_written(
    position: int, seed_share: bytes, key_share: bytes
) -> None:
    inside = Shares(position, seed_share, key_share)
    assert Shares.from_bytes(inside.to_bytes()) == inside


@settings(deadline=None, max_examples=20)
@given(st.lists(PEERS, max_size=4, unique_by=lambda peer: peer.index))
def test_peers_are_read_as_they_were_written(peers: list[Peer]) -> None:
    assert peers_from_bytes(peers_to_bytes(peers), degree=4) == tuple(peers)


@settings(deadline=None, max_examples=20)
@given(
    st.binary(min_size=2, max_size=2),
    st.dictionaries(st.integers(0, 10), SIGNATURES, max_size=4),
)
def test_an_unmask_request_is_read_as_it_was_written(
    survivors: bytes, signatures: dict[int, bytes]
) -> None:
    sent = UnmaskRequest(survivors, signatures)
    assert UnmaskRequest.from_bytes(sent.to_bytes(), num_participants=SIZE) == sent


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(INDICES, SHARES, max_size=4))
def test_shares_are_read_as_they_were_written(shares: dict[int, bytes]) -> None:
    assert shares_from_bytes(shares_to_bytes(shares), degree=4) == shares


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=1200))
def test_random_bytes_raise_nothing_but_a_peer_error(
    parser: Callable[[bytes], object], data: bytes
) -> None:
    try:
        parser(data)
    except PeerError:
        return


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_ten_megabytes_are_refused_by_their_length(
    parser: Callable[[bytes], object],
) -> None:
    with pytest.raises(PeerError):
        parser(bytes(10_000_003))


def test_a_message_may_not_have_more_peers_than_neighbours() -> None:
    peer = peer_at(0)
    with pytest.raises(PeerError, match="up to"):
        peers_from_bytes(peer.to_bytes() * (DEGREE + 1), degree=DEGREE)


def test_a_peer_may_not_occur_twice() -> None:
    peer = peer_at(5)
    with pytest.raises(PeerError, match="twice"):
        peers_from_bytes(peer.to_bytes() * 2, degree=DEGREE)


def test_a_share_may_not_occur_twice() -> None:
    entry = shares_to_bytes({5: bytes(SHARE_BYTES)})
    with pytest.raises(PeerError, match="twice"):
        shares_from_bytes(entry * 2, degree=DEGREE)


def test_a_signer_may_not_occur_twice_or_be_unknown() -> None:
    once = UnmaskRequest(bytes(2), {5: bytes(64)}).to_bytes()
    unknown = UnmaskRequest(bytes(2), {SIZE: bytes(64)}).to_bytes()
    for data in (once + once[2:], unknown):
        with pytest.raises(PeerError, match="signer"):
            UnmaskRequest.from_bytes(data, num_participants=SIZE)


def test_the_shares_in_a_box_are_never_shown() -> None:
    shown = repr(Shares(1, b"\xaa" * 33, b"\xaa" * 33))
    assert shown == "Shares(position=1)"
