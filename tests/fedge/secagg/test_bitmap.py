import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import PeerError
from fedge.secagg.bitmap import pack_set, unpack_set


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 200), st.sets(st.integers(0, 199)))
def test_a_set_is_read_as_it_was_packed(size: int, numbers: set[int]) -> None:
    members = {number % size for number in numbers}
    packed = pack_set(members, size)
    assert len(packed) == -(-size // 8)
    assert unpack_set(packed, size) == members


def test_the_first_member_is_the_lowest_bit() -> None:
    assert pack_set([0, 9], 11) == bytes([1, 2])


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=6), st.integers(1, 40))
def test_what_is_accepted_has_only_one_form(data: bytes, size: int) -> None:
    try:
        members = unpack_set(data, size)
    except PeerError:
        return
    assert pack_set(members, size) == data


@pytest.mark.parametrize("length", [0, 1, 3, 1000])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(PeerError, match="bytes"):
        unpack_set(bytes(length), 11)


@pytest.mark.parametrize("bit", range(11, 16))
def test_a_bit_behind_the_last_participant_is_refused(bit: int) -> None:
    with pytest.raises(PeerError, match="beyond"):
        unpack_set((1 << bit).to_bytes(2, "little"), 11)
