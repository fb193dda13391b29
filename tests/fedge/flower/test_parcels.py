from hypothesis import given
from hypothesis import strategies as st

from fedge.flower.parcels import pack, unpack

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN, st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_packed_is_unpacked(structure: object, blobs: list[bytes]) -> None:
    assert unpack(pack(structure, blobs)) == (structure, blobs)
