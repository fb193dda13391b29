from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import ConfigError, PeerError
from fedge.secagg.identity import (
    CERTIFICATE_BYTES,
    FAST_AES,
    MAX_NOT_AFTER,
    MAX_UID,
    Certificate,
    SigningKey,
    check,
    fingerprint,
    issue,
    verify_signature,
)

NOW = 1_800_000_000
# RFC 8032, section 7.1, test 1.
RFC_SECRET = bytes.fromhex(
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
)
RFC_PUBLIC = bytes.fromhex(
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
)
ENROLMENT = SigningKey.from_bytes(RFC_SECRET)
DEVICE = SigningKey.from_bytes(bytes(range(32)))


def certificate(uid: int = 7, *, caps: int = 1, not_after: int = NOW) -> Certificate:
    return issue(
        ENROLMENT,
        uid=uid,
        identity_key=DEVICE.public,
        caps=caps,
        not_after=not_after,
    )


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_public_key_is_that_of_rfc_8032() -> None:
    assert ENROLMENT.public == RFC_PUBLIC
    assert ENROLMENT.to_bytes() == RFC_SECRET


def test_new_keys_differ_and_come_back_from_their_bytes() -> None:
    one, other = SigningKey.generate(), SigningKey.generate()
    assert one.public != other.public
    assert SigningKey.from_bytes(one.to_bytes()).public == one.public


def test_a_key_shows_its_public_half_only() -> None:
    assert RFC_SECRET.hex() not in repr(ENROLMENT)
    assert RFC_PUBLIC.hex() in repr(ENROLMENT)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=f"{length} bytes, need 32"):
        SigningKey.from_bytes(bytes(length))


def test_a_signature_holds_for_its_own_label_and_parts() -> None:
    signature = DEVICE.sign("u3", b"session", b"members")
    verify_signature(DEVICE.public, signature, "u3", b"session", b"members")


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("u2", (b"session", b"members")),
        ("u3", (b"session", b"member")),
        ("u3", (b"sessionm", b"embers")),
        ("u3", (b"session", b"members", b"")),
    ],
)
def test_a_signature_for_something_else_is_refused(
    label: str, parts: tuple[bytes, ...]
) -> None:
    signature = DEVICE.sign("u3", b"session", b"members")
    with pytest.raises(PeerError, match="not valid"):
        verify_signature(DEVICE.public, signature, label, *parts)


@pytest.mark.parametrize(
    ("public", "signature"),
    [
        (RFC_PUBLIC, DEVICE.sign("u3")),
        (b"short", DEVICE.sign("u3")),
        (DEVICE.public, b""),
        (DEVICE.public, DEVICE.sign("u3")[:-1]),
        (DEVICE.public, DEVICE.sign("u3") + b"\0"),
    ],
)
def test_a_wrong_key_or_signature_is_refused(public: bytes, signature: bytes) -> None:
    with pytest.raises(PeerError, match="not valid"):
        verify_signature(public, signature, "u3")


def test_a_certificate_is_good_until_its_last_second() -> None:
    check(certificate(not_after=NOW), ENROLMENT.public, now=NOW)
    with pytest.raises(PeerError, match=f"uid 7: its certificate expired at {NOW}"):
        check(certificate(not_after=NOW), ENROLMENT.public, now=NOW + 1)


def test_a_certificate_of_another_enrolment_key_is_refused() -> None:
    with pytest.raises(PeerError, match=r"uid 7: .* not from this enrolment key"):
        check(certificate(), DEVICE.public, now=NOW)


def test_no_field_can_be_changed_after_signing() -> None:
    good = certificate()
    changed = [
        replace(good, uid=8),
        replace(good, identity_key=ENROLMENT.public),
        replace(good, caps=0),
        replace(good, not_after=NOW + 1),
    ]
    for wrong in changed:
        with pytest.raises(PeerError, match="not from this enrolment key"):
            check(wrong, ENROLMENT.public, now=NOW)


@settings(deadline=None, max_examples=30)
@given(
    uid=st.integers(1, MAX_UID),
    caps=st.integers(0, 2**32 - 1),
    not_after=st.integers(1, MAX_NOT_AFTER),
)
def test_a_certificate_comes_back_from_its_bytes(
    uid: int, caps: int, not_after: int
) -> None:
    made = certificate(uid, caps=caps, not_after=not_after)
    assert len(made.to_bytes()) == CERTIFICATE_BYTES
    assert Certificate.from_bytes(made.to_bytes()) == made
    assert made.has_fast_aes == bool(caps & FAST_AES)


@settings(deadline=None, max_examples=100)
@given(bit=st.integers(0, CERTIFICATE_BYTES * 8 - 1))
def test_no_bit_of_a_certificate_can_be_flipped(bit: int) -> None:
    wrong = flipped(certificate().to_bytes(), bit)
    with pytest.raises(PeerError):
        check(Certificate.from_bytes(wrong), ENROLMENT.public, now=NOW)


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=2 * CERTIFICATE_BYTES))
def test_random_bytes_are_no_certificate(data: bytes) -> None:
    with pytest.raises(PeerError, match="certificate: "):
        Certificate.from_bytes(data)


@pytest.mark.parametrize("length", [0, CERTIFICATE_BYTES - 1, CERTIFICATE_BYTES + 1])
def test_a_certificate_has_one_length(length: int) -> None:
    with pytest.raises(PeerError, match=f"{length} bytes, need exactly"):
        Certificate.from_bytes((certificate().to_bytes() + b"\0")[:length])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(certificate(), uid=0), r"uid 0 not in \[1, 4294967295\]"),
        (replace(certificate(), not_after=0), "not_after 0 not in"),
        (replace(certificate(), not_after=2**64 - 1), "not_after .* not in"),
    ],
)
def test_a_field_out_of_range_is_refused_when_read(
    wrong: Certificate, message: str
) -> None:
    with pytest.raises(PeerError, match=message):
        Certificate.from_bytes(wrong.to_bytes())


@pytest.mark.parametrize(
    ("uid", "key", "caps", "not_after"),
    [
        (0, DEVICE.public, 0, NOW),
        (2**32, DEVICE.public, 0, NOW),
        (1, b"short", 0, NOW),
        (1, DEVICE.public, -1, NOW),
        (1, DEVICE.public, 2**32, NOW),
        (1, DEVICE.public, 0, 0),
        (1, DEVICE.public, 0, MAX_NOT_AFTER + 1),
    ],
)
def test_a_field_out_of_range_is_refused_when_issued(
    uid: int, key: bytes, caps: int, not_after: int
) -> None:
    with pytest.raises(ConfigError, match="certificate: "):
        issue(ENROLMENT, uid=uid, identity_key=key, caps=caps, not_after=not_after)


def test_the_encoding_is_frozen() -> None:
    # Ed25519 signatures are deterministic, so the whole certificate is.
    made = issue(
        ENROLMENT, uid=258, identity_key=DEVICE.public, caps=1, not_after=NOW
    ).to_bytes()
    assert made.hex() == FROZEN_CERTIFICATE


def test_fingerprints_tell_keys_apart() -> None:
    assert len(fingerprint(DEVICE.public)) == 32
    assert fingerprint(DEVICE.public) != fingerprint(ENROLMENT.public)


FROZEN_CERTIFICATE = (
    "667343310201000003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f"
    "1ddc8664125531b80100000000d2496b00000000bbb356c45a1308dcc4ae6663"
    "272fabb7d4a6bf37b960be24c49b939721c516e452f8addd5002764fd6319dea"
    "0f7aff30a7dfd57a0fe922f96945f85db9963b05"
)
