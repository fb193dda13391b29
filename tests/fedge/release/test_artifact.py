import pytest

from fedge.compress.pack import pack
from fedge.errors import DigestMismatchError, VerificationError
from fedge.release.artifact import MAX_UNPACKED_BYTES, digest, unpack_model

MODEL = b"model " * 1000


def test_the_signed_model_comes_out() -> None:
    packed = pack(MODEL, level=3)
    model = unpack_model(packed, num_bytes=len(MODEL), sha256=digest(MODEL))
    assert model == MODEL


def test_digest_has_a_known_answer() -> None:
    # SHA-256 of "abc", FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(b"abc") == expected


@pytest.mark.parametrize("other", [MODEL[:-1], MODEL[:-1] + b"x", b""])
def test_another_model_is_refused(other: bytes) -> None:
    with pytest.raises(DigestMismatchError, match="not the signed model"):
        unpack_model(pack(other, level=3), num_bytes=len(MODEL), sha256=digest(MODEL))


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = pack(bytes(MAX_UNPACKED_BYTES + 1), level=1)
    assert len(bomb) < 100_000
    with pytest.raises(VerificationError, match="are accepted"):
        unpack_model(bomb, num_bytes=MAX_UNPACKED_BYTES + 1, sha256="0" * 64)


def test_a_frame_that_states_too_little_is_refused() -> None:
    packed = bytearray(pack(bytes(100_000), level=1))
    # Frame header (RFC 8878, 3.1.1.1): the size field of a single-segment frame.
    at = packed.index((100_000).to_bytes(4, "little"))
    packed[at : at + 4] = (100).to_bytes(4, "little")
    with pytest.raises(VerificationError):
        unpack_model(bytes(packed), num_bytes=100, sha256=digest(bytes(100)))
