import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import PeerError
from fedge.secagg.hashing import derive_key
from fedge.secagg.keystream import MaskSeed, Suite
from fedge.secagg.pairwise import commitment_of, pair_mask, self_mask
from tests.fedge.secagg.people import person

SESSION = bytes(range(32))
SECRETS = [X25519PrivateKey.from_private_bytes(bytes([7 + i]) * 32) for i in range(2)]
PUBLIC = [secret.public_key().public_bytes_raw() for secret in SECRETS]


def masks_of(
    *,
    places: tuple[int, int] = (3, 5),
    fast: tuple[bool, bool],
    session: bytes = SESSION,
) -> list[MaskSeed]:
    """Return what both ends derive."""
    ends = [
        (place, person(9 + i, fast=quick).member.certificate)
        for i, (place, quick) in enumerate(zip(places, fast, strict=True))
    ]
    return [
        pair_mask(SECRETS[i], PUBLIC[1 - i], ends[i], ends[1 - i], session_id=session)
        for i in range(2)
    ]


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)).filter(
        lambda pair: pair[0] != pair[1]
    ),
    st.tuples(st.booleans(), st.booleans()),
    st.binary(min_size=32, max_size=32),
)
def test_both_ends_derive_one_key_with_opposite_signs(
    places: tuple[int, int], fast: tuple[bool, bool], session: bytes
) -> None:
    one, other = masks_of(places=places, fast=fast, session=session)
    assert (one.key, one.suite) == (other.key, other.suite)
    assert one.sign == -other.sign == (1 if places[1] < places[0] else -1)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_aes_is_taken_only_where_both_ends_have_it(first: bool, second: bool) -> None:
    expected = Suite.AES256_CTR if first and second else Suite.CHACHA20
    assert masks_of(fast=(first, second))[0].suite is expected


def test_the_session_the_places_and_the_suite_are_in_the_key() -> None:
    keys = [
        masks_of(fast=(True, True))[0].key,
        masks_of(fast=(True, False))[0].key,
        masks_of(fast=(True, True), session=bytes(32))[0].key,
        masks_of(fast=(True, True), places=(3, 6))[0].key,
        masks_of(fast=(True, True), places=(5, 3))[0].key,
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_is_what_the_specification_says() -> None:
    shared = SECRETS[0].exchange(SECRETS[1].public_key())
    info = struct.pack("<IIB", 3, 5, 1) + PUBLIC[0] + PUBLIC[1]
    expected = derive_key(shared, salt=SESSION, label="pair", info=info)
    assert masks_of(fast=(True, True))[0].key == expected


@pytest.mark.parametrize("point", [bytes(32), bytes([1]) + bytes(31), b"short"])
def test_a_key_without_a_secret_is_refused_and_its_owner_named(point: bytes) -> None:
    certificate = person(9).member.certificate
    with pytest.raises(PeerError, match="participant 5"):
        pair_mask(
            SECRETS[0], point, (3, certificate), (5, certificate), session_id=SESSION
        )


def test_a_self_mask_is_bound_to_session_place_and_suite() -> None:
    seeds = [
        self_mask(
            bytes(32), person(9, fast=fast).member.certificate, session_id=s, index=i
        )
        for fast, s, i in [
            (True, SESSION, 1),
            (False, SESSION, 1),
            (True, bytes(32), 1),
            (True, SESSION, 2),
        ]
    ]
    assert len({seed.key for seed in seeds}) == len(seeds)
    assert {seed.sign for seed in seeds} == {1}


def test_a_commitment_is_bound_to_session_and_place() -> None:
    made = [
        commitment_of(bytes(32), session_id=SESSION, index=1),
        commitment_of(bytes(32), session_id=SESSION, index=2),
        commitment_of(bytes(32), session_id=bytes(32), index=1),
        commitment_of(bytes([1]) * 32, session_id=SESSION, index=1),
    ]
    assert len(set(made)) == len(made)


def test_no_key_is_shown() -> None:
    mask = masks_of(fast=(True, True))[0]
    assert repr(mask.key) not in repr(mask)
    assert mask.key.hex() not in repr(mask)
