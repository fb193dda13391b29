import contextlib
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.compress.delta import apply_delta, make_delta, read_header
from fedge.errors import DigestMismatchError, VerificationError

MAX = 100_000
RNG = np.random.default_rng(0)
BASE = RNG.integers(0, 256, 20_000, np.uint8).tobytes()


def moved(base: bytes) -> bytes:
    """Return bytes of which a few moved by one, around 0 and 255 too."""
    steps = np.random.default_rng(1).choice([0, 0, 0, 0, 1, 255], len(base))
    return (np.frombuffer(base, np.uint8) + steps.astype(np.uint8)).tobytes()


NEW = moved(BASE)


@given(st.none() | st.binary(max_size=300), st.binary(max_size=300))
def test_any_file_can_be_rebuilt(base: bytes | None, new: bytes) -> None:
    delta = make_delta(base, new, level=3)
    assert apply_delta(base, delta, max_bytes=300) == new
    assert read_header(delta).sha256 == hashlib.sha256(new).digest()


def test_small_steps_make_a_small_delta() -> None:
    delta = make_delta(BASE, NEW, level=19)
    assert not read_header(delta).is_full
    assert len(delta) < 0.25 * len(NEW)
    assert delta == make_delta(BASE, NEW, level=19)


def test_a_file_of_another_length_or_without_a_base_is_sent_whole() -> None:
    for base in (None, BASE[:-1], bytes(len(NEW))):
        delta = make_delta(base, NEW, level=3)
        assert read_header(delta).is_full
        assert apply_delta(None, delta, max_bytes=MAX) == NEW


@pytest.mark.parametrize("base", [None, NEW, BASE[:-1], b""])
def test_another_base_is_refused_and_the_full_file_named(base: bytes | None) -> None:
    delta = make_delta(BASE, NEW, level=3)
    with pytest.raises(DigestMismatchError, match="ask for the full file"):
        apply_delta(base, delta, max_bytes=MAX)


def test_a_file_that_is_too_large_is_refused() -> None:
    bomb = make_delta(None, bytes(50_000_000), level=3)
    with pytest.raises(VerificationError, match="at most 1000"):
        apply_delta(None, bomb, max_bytes=1000)


@given(st.integers(0, 2**32))
def test_a_damaged_delta_never_gives_another_file(seed: int) -> None:
    rng = np.random.default_rng(seed)
    delta = bytearray(make_delta(BASE, NEW, level=1))
    delta[rng.integers(len(delta))] ^= 1 << rng.integers(8)
    # A bit that zstd does not read may be wrong without any harm.
    with contextlib.suppress(VerificationError):
        assert apply_delta(BASE, bytes(delta), max_bytes=MAX) == NEW


@pytest.mark.parametrize("place", [0, 8, 20, 50, 200])
def test_a_damaged_delta_is_refused(place: int) -> None:
    delta = bytearray(make_delta(BASE, NEW, level=1))
    delta[place] ^= 0xFF
    with pytest.raises(VerificationError):
        apply_delta(BASE, bytes(delta), max_bytes=MAX)


@pytest.mark.parametrize("length", [0, 5, 9, 73, 100])
def test_a_delta_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(VerificationError):
        apply_delta(BASE, make_delta(BASE, NEW, level=1)[:length], max_bytes=MAX)


def test_a_difference_of_another_length_than_its_base_is_refused() -> None:
    delta = make_delta(BASE, NEW, level=1)
    longer = make_delta(BASE + b"x", NEW + b"y", level=1)
    header_bytes = 8 + 1 + 64
    with pytest.raises(VerificationError, match="its base has 20000"):
        apply_delta(BASE, delta[:header_bytes] + longer[header_bytes:], max_bytes=MAX)
