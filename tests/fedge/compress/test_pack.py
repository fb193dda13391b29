import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.compress.pack import pack, unpack
from fedge.errors import VerificationError

MODEL = bytes(range(256)) * 20
PACKED = pack(MODEL, level=19)


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=3000), st.integers(1, 22))
def test_packing_is_lossless_and_deterministic(model: bytes, level: int) -> None:
    packed = pack(model, level=level)
    assert unpack(packed, max_bytes=len(model)) == model
    assert pack(model, level=level) == packed


def test_a_model_larger_than_allowed_is_refused() -> None:
    assert unpack(PACKED, max_bytes=len(MODEL)) == MODEL
    with pytest.raises(VerificationError, match="states 5120 bytes, at most 5119"):
        unpack(PACKED, max_bytes=len(MODEL) - 1)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = pack(bytes(10**8), level=3)
    assert len(bomb) < 10_000
    with pytest.raises(VerificationError, match="at most 1000000"):
        unpack(bomb, max_bytes=10**6)


def test_a_frame_that_does_not_state_its_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(MODEL)
    with pytest.raises(VerificationError, match="states"):
        unpack(frame, max_bytes=10**6)


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    frame = bytearray(PACKED)
    assert frame[5:7] == (len(MODEL) - 256).to_bytes(2, "little")
    frame[5:7] = (10).to_bytes(2, "little")
    with pytest.raises(VerificationError, match="damaged"):
        unpack(bytes(frame), max_bytes=1000)


@pytest.mark.parametrize(
    "packed",
    [b"", b"no zstd at all", PACKED[:5], PACKED[:-1], PACKED + b"x", PACKED + PACKED],
    ids=["empty", "other", "header only", "cut off", "byte after", "frame after"],
)
def test_anything_but_one_whole_frame_is_refused(packed: bytes) -> None:
    with pytest.raises(VerificationError, match="packed model"):
        unpack(packed, max_bytes=10**6)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_a_damaged_frame_never_gives_more_than_allowed(place: int, flip: int) -> None:
    damaged = bytearray(PACKED)
    damaged[place] ^= flip
    try:
        result = unpack(bytes(damaged), max_bytes=10_000)
    except VerificationError:
        return
    assert len(result) <= 10_000
