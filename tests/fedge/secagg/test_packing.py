import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import UInt8
from fedge.errors import MisuseError, PeerError
from fedge.secagg.packing import add_packed, check_packed, pack, unpack
from fedge.secagg.ring import PROFILES, Profile, RingArray

NAMES = sorted(PROFILES)
SIZES = st.one_of(st.integers(0, 70), st.sampled_from([32_767, 32_768, 32_769, 65_537]))


def random_words(profile: Profile, size: int, seed: int) -> RingArray:
    word_bits = 16 if profile.ring_bits == 16 else 32
    rng = np.random.default_rng(seed)
    words: RingArray = rng.integers(0, 2**word_bits, size).astype(profile.dtype)
    return words


def reduced(words: RingArray, profile: Profile) -> list[int]:
    return [int(word) % 2**profile.ring_bits for word in words]


@given(name=st.sampled_from(NAMES), size=SIZES, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_packing_and_unpacking_reduces_and_nothing_else(
    name: str, size: int, seed: int
) -> None:
    profile = PROFILES[name]
    words = random_words(profile, size, seed)
    packed = pack(words, profile)
    assert len(packed) == profile.bytes_for(size)
    unpacked = unpack(packed, size, profile)
    assert unpacked.dtype == profile.dtype
    assert unpacked.tolist() == reduced(words, profile)


@given(name=st.sampled_from(NAMES), size=SIZES, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_adding_packed_elements_is_unpacking_and_adding(
    name: str, size: int, seed: int
) -> None:
    profile = PROFILES[name]
    total = random_words(profile, size, seed)
    packed = pack(random_words(profile, size, seed + 1), profile)
    expected = total + unpack(packed, size, profile)
    add_packed(total, packed, profile)
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize(
    ("name", "words", "wire"),
    [
        ("r16", [0x0102, 0xFFFE], "0201feff"),
        ("r20", [0x1_2345, 0xF_6789, 0xA_BCDE], "45238967debc" + "f10a"),
        ("r24", [0x01_2345, 0xFF_6789], "45238967" + "01ff"),
        ("r32", [0x0123_4567, 0x89AB_CDEF], "67452301efcdab89"),
    ],
)
def test_the_planes_lie_as_described(name: str, words: list[int], wire: str) -> None:
    profile = PROFILES[name]
    assert pack(np.array(words, profile.dtype), profile).hex() == wire
    assert unpack(bytes.fromhex(wire), len(words), profile).tolist() == words


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_vector_is_the_peers_fault(name: str) -> None:
    data = bytes(PROFILES[name].bytes_for(7) - 1)
    with pytest.raises(PeerError, match="need"):
        check_packed(data, 7, PROFILES[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000])
def test_a_wrong_number_of_bytes_is_the_peers_fault(name: str, size: int) -> None:
    profile = PROFILES[name]
    data = bytes(profile.bytes_for(size) + 1)
    with pytest.raises(PeerError, match="need"):
        unpack(data, size, profile)
    with pytest.raises(PeerError, match="need"):
        check_packed(data + b"\x00", size, profile)


def test_bits_behind_the_last_element_are_the_peers_fault() -> None:
    profile = PROFILES["r20"]
    data = bytearray(pack(np.ones(3, np.uint32), profile))
    data[-1] |= 0x10
    with pytest.raises(PeerError, match="behind the last"):
        unpack(bytes(data), 3, profile)


def test_after_an_error_the_accumulator_is_unchanged() -> None:
    total = np.arange(5, dtype=np.uint32)
    with pytest.raises(PeerError):
        add_packed(total, b"\x01" * 14, PROFILES["r24"])
    assert total.tolist() == [0, 1, 2, 3, 4]


@given(data=st.binary(max_size=40), size=st.integers(0, 20))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_elements_or_refused(data: bytes, size: int) -> None:
    profile = PROFILES["r20"]
    try:
        words = unpack(data, size, profile)
    except PeerError:
        return
    assert pack(words, profile) == data


def test_a_strided_vector_packs_like_its_copy() -> None:
    words = random_words(PROFILES["r24"], 200, 1)[::2]
    assert pack(words, PROFILES["r24"]) == pack(words.copy(), PROFILES["r24"])


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(4, np.uint16), np.zeros((2, 2), np.uint32), np.zeros(4, np.int64)],
)
def test_other_arrays_are_refused(wrong: UInt8) -> None:
    with pytest.raises(MisuseError, match="need a vector of uint32"):
        pack(wrong, PROFILES["r24"])
    with pytest.raises(MisuseError, match="need a vector of uint32"):
        add_packed(wrong, bytes(12), PROFILES["r24"])
