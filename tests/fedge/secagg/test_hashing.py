import hashlib
import hmac
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.secagg.hashing import derive_key, digest, framed

VECTORS = Path(__file__).parents[2] / "vectors"
PARTS = st.lists(st.binary(max_size=6), max_size=4)


@given(one=PARTS, other=PARTS)
@settings(deadline=None)
def test_different_parts_are_never_framed_alike(
    one: list[bytes], other: list[bytes]
) -> None:
    assert (framed("a", *one) == framed("a", *other)) == (one == other)


def test_a_label_is_no_part() -> None:
    assert framed("ab", b"c") != framed("a", b"bc")
    assert digest("one", b"x") != digest("two", b"x")


def test_lengths_are_little_endian_and_the_domain_comes_first() -> None:
    expected = b"\x0d\x00\x00\x00fedge/sa/1/id" + b"\x02\x00\x00\x00hi"
    assert framed("id", b"hi") == expected


def test_a_derived_key_is_hkdf_as_in_rfc_5869() -> None:
    secret, salt, info = b"s" * 32, b"salt", framed("pair", b"i")
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    expanded = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()
    assert derive_key(secret, salt=salt, label="pair", info=b"i") == expanded


def test_frozen_hashes_have_not_changed() -> None:
    frozen = json.loads((VECTORS / "secagg_primitives.json").read_text())["hashing"]
    secret = bytes(range(32))
    key = derive_key(secret, salt=bytes(32), label="pair", info=b"info")
    assert digest("session", b"one", b"").hex() == frozen["digest"]
    assert key.hex() == frozen["key"]
