import struct
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import PeerError
from fedge.secagg.ring import Profile
from fedge.secagg.session import Descriptor
from tests.fedge.secagg.pairs import cohort_of

SOUND = cohort_of(9, degree=8, threshold=6).descriptor
ENCODED = SOUND.to_bytes()
OTHER_VALUES: dict[str, Any] = {
    "run": 2,
    "round_index": 1,
    "attempt": 1,
    "num_participants": 10,
    "degree": 6,
    "threshold": 7,
    "max_corrupt": 1,
    "min_survivors": 4,
    "profile": Profile(32, 16),
    "clip": 2.0,
    "max_weight": 17.0,
    "vector_size": 9,
    "malicious": True,
    "model_digest": bytes(32),
    "config_digest": bytes(32),
    "roster_digest": bytes(32),
    "beacon": bytes([1]) * 32,
}


def test_a_descriptor_is_read_as_it_was_written() -> None:
    assert Descriptor.from_bytes(ENCODED) == SOUND


@pytest.mark.parametrize("name", [field.name for field in fields(Descriptor)])
def test_every_field_is_in_the_bytes_and_in_the_session_id(name: str) -> None:
    other = replace(SOUND, **{name: OTHER_VALUES[name]})
    assert other.to_bytes() != ENCODED
    assert other.session_id != SOUND.session_id
    changed = replace(other, num_participants=9) if name == "degree" else other
    assert getattr(changed, name) == OTHER_VALUES[name]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(ENCODED) - 1), st.integers(0, 255))
def test_changed_bytes_are_refused_or_read_as_they_stand(at: int, byte: int) -> None:
    data = ENCODED[:at] + bytes([byte]) + ENCODED[at + 1 :]
    try:
        read = Descriptor.from_bytes(data)
    except PeerError:
        return
    assert read.to_bytes() == data


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300) | st.binary(min_size=195, max_size=195))
def test_random_bytes_raise_nothing_but_a_peer_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        Descriptor.from_bytes(data)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=7, max_size=7), st.binary())
def test_random_numbers_raise_nothing_but_a_peer_error(
    numbers: list[int], rest: bytes
) -> None:
    head = struct.pack("<BBQ", 1, 0, 7) + struct.pack("<7I", *numbers)
    data = (head + rest).ljust(len(ENCODED), b"\1")[: len(ENCODED)]
    with pytest.raises(PeerError):
        Descriptor.from_bytes(data)


@pytest.mark.parametrize("size", [0, 1, len(ENCODED) - 1, len(ENCODED) + 1])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(PeerError, match="length"):
        Descriptor.from_bytes(ENCODED.ljust(size, b"\0")[:size])


@pytest.mark.parametrize(("at", "byte"), [(0, 0), (0, 2), (1, 2), (1, 255)])
def test_an_unknown_version_or_flag_is_refused(at: int, byte: int) -> None:
    data = ENCODED[:at] + bytes([byte]) + ENCODED[at + 1 :]
    with pytest.raises(PeerError, match="unknown"):
        Descriptor.from_bytes(data)


@pytest.mark.parametrize("ring_bits", [0, 8, 64])
def test_an_unknown_ring_is_the_peers_fault_not_the_settings(ring_bits: int) -> None:
    at = struct.calcsize("<BBQIIIIIII")
    data = ENCODED[:at] + bytes([ring_bits]) + ENCODED[at + 1 :]
    with pytest.raises(PeerError, match="ring_bits"):
        Descriptor.from_bytes(data)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_participants": 2, "degree": 1}, "participants"),
        ({"num_participants": 65_537}, "participants"),
        ({"degree": 1, "threshold": 1}, "degree"),
        ({"degree": 9}, "degree"),
        ({"degree": 5, "threshold": 5}, "even"),
        ({"degree": 7, "threshold": 7}, "even"),
        ({"threshold": 1}, "threshold"),
        ({"threshold": 9}, "threshold"),
        ({"threshold": 4}, "more than half"),
        ({"max_corrupt": 4}, "more than half"),
        ({"min_survivors": 1}, "min_survivors"),
        ({"min_survivors": 10}, "min_survivors"),
        ({"vector_size": 0}, "vector"),
        ({"vector_size": 2**31 + 1}, "vector"),
        ({"clip": 0.0}, "clip"),
        ({"clip": -1.0}, "clip"),
        ({"clip": 5e-324}, "clip"),
        ({"clip": float("nan")}, "clip"),
        ({"clip": float("inf")}, "clip"),
        ({"max_weight": 0.0}, "max_weight"),
        ({"max_weight": float("nan")}, "max_weight"),
        ({"max_weight": 1e300}, "max_weight"),
        ({"profile": Profile(16, 15)}, "overflow"),
    ],
)
def test_numbers_that_do_not_make_sense_are_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PeerError, match=reason):
        replace(SOUND, **changes).check()


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 200), st.integers(2, 200), st.integers(0, 200))
def test_no_accepted_session_lets_a_split_set_open_both_secrets(
    k: int, t: int, c: int
) -> None:
    proposed = replace(
        SOUND, num_participants=k + 1, degree=k, threshold=t, max_corrupt=c
    )
    try:
        proposed.check()
    except PeerError:
        return
    # t say "alive" and t say "dead": k neighbours, of whom only c say both.
    assert 2 * t > k + c


def test_two_majorities_share_an_honest_signer() -> None:
    for n in range(3, 40):
        for c in range(n):
            proposed = replace(SOUND, num_participants=n, max_corrupt=c)
            assert 2 * proposed.majority - n > c


def test_a_sum_may_use_the_whole_ring_but_not_more() -> None:
    profile = Profile(16, 8)
    most = profile.max_clients
    full = replace(
        SOUND,
        profile=profile,
        num_participants=most,
        degree=most - 1,
        threshold=most - 1,
    )
    full.check()
    with pytest.raises(PeerError, match="overflow"):
        replace(full, num_participants=most + 1, degree=most).check()
