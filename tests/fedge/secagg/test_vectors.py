"""The library underneath, against the standards' own examples."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.poly1305 import Poly1305

from fedge.secagg.keystream import Suite, keystream

FOLDER = Path(__file__).parents[2] / "vectors"


def vectors(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    assert loaded["source"]
    return loaded


X25519 = vectors("x25519")


def multiply(scalar: bytes, u: bytes) -> bytes:
    private = X25519PrivateKey.from_private_bytes(scalar)
    return private.exchange(X25519PublicKey.from_public_bytes(u))


@pytest.mark.parametrize("case", X25519["multiply"])
def test_x25519_multiplies_as_in_rfc_7748(case: dict[str, str]) -> None:
    product = multiply(bytes.fromhex(case["scalar"]), bytes.fromhex(case["u"]))
    assert product.hex() == case["result"]


@pytest.mark.parametrize("case", X25519["iterated"])
def test_x25519_iterated_as_in_rfc_7748(case: dict[str, Any]) -> None:
    scalar = u = bytes([9]) + bytes(31)
    for _ in range(case["times"]):
        scalar, u = multiply(scalar, u), scalar
    assert scalar.hex() == case["result"]


def test_x25519_agrees_on_a_secret_as_in_rfc_7748() -> None:
    pair = {name: bytes.fromhex(value) for name, value in X25519["exchange"].items()}
    alice = X25519PrivateKey.from_private_bytes(pair["alice_private"])
    bob = X25519PrivateKey.from_private_bytes(pair["bob_private"])
    assert alice.public_key().public_bytes_raw() == pair["alice_public"]
    assert bob.public_key().public_bytes_raw() == pair["bob_public"]
    assert multiply(pair["alice_private"], pair["bob_public"]) == pair["shared"]
    assert multiply(pair["bob_private"], pair["alice_public"]) == pair["shared"]


@pytest.mark.parametrize("point", X25519["low_order"])
@pytest.mark.parametrize("top_bit", [0x00, 0x80])
def test_x25519_refuses_a_point_of_low_order(point: str, top_bit: int) -> None:
    raw = bytearray.fromhex(point)
    raw[31] |= top_bit  # ignored by RFC 7748: the same point
    with pytest.raises(ValueError, match="shared key"):
        multiply(bytes([7]) * 32, bytes(raw))


@pytest.mark.parametrize("case", vectors("hkdf_sha256")["cases"])
def test_hkdf_as_in_rfc_5869(case: dict[str, Any]) -> None:
    salt, info = bytes.fromhex(case["salt"]), bytes.fromhex(case["info"])
    kdf = HKDF(algorithm=SHA256(), length=case["length"], salt=salt, info=info)
    assert kdf.derive(bytes.fromhex(case["secret"])).hex() == case["output"]


CHACHA = vectors("chacha20_poly1305")


def test_our_chacha20_mask_begins_as_in_rfc_8439() -> None:
    assert keystream(bytes(32), Suite.CHACHA20, 64).hex() == CHACHA["zero_keystream"]


def test_chacha20_as_in_rfc_8439() -> None:
    case = CHACHA["cipher"]
    nonce = case["counter"].to_bytes(4, "little") + bytes.fromhex(case["nonce"])
    cipher = Cipher(ChaCha20(bytes.fromhex(case["key"]), nonce), mode=None).encryptor()
    encrypted = cipher.update(bytes.fromhex(case["plaintext"]))
    assert encrypted.hex() == case["ciphertext"]


def test_poly1305_as_in_rfc_8439() -> None:
    case = {name: bytes.fromhex(value) for name, value in CHACHA["poly1305"].items()}
    assert Poly1305.generate_tag(case["key"], case["message"]) == case["tag"]


def test_chacha20_poly1305_as_in_rfc_8439() -> None:
    case = {name: bytes.fromhex(value) for name, value in CHACHA["aead"].items()}
    box = ChaCha20Poly1305(case["key"])
    sealed = box.encrypt(case["nonce"], case["plaintext"], case["additional"])
    assert sealed == case["sealed"]


@pytest.mark.parametrize("case", vectors("ed25519")["cases"])
def test_ed25519_as_in_rfc_8032(case: dict[str, str]) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["private"]))
    message = bytes.fromhex(case["message"])
    assert private.public_key().public_bytes_raw().hex() == case["public"]
    assert private.sign(message).hex() == case["signature"]
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(case["public"]))
    public.verify(bytes.fromhex(case["signature"]), message)


def test_aes_256_ctr_as_in_sp_800_38a() -> None:
    case = {
        k: bytes.fromhex(v) for k, v in vectors("aes256_ctr").items() if k[0] != "s"
    }
    cipher = Cipher(AES(case["key"]), CTR(case["counter"])).encryptor()
    assert cipher.update(case["plaintext"]) == case["ciphertext"]
