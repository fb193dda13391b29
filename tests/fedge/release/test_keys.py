import stat
from pathlib import Path

import pytest

from fedge.errors import ConfigError
from fedge.release.keys import KeyRing


def key_ids(keys: KeyRing) -> dict[str, str]:
    return {name: signer.public_key.keyid for name, signer in keys.signers.items()}


def test_keys_come_back_as_they_were_made(tmp_path: Path) -> None:
    made = KeyRing.create(tmp_path / "keys", root_keys=3, root_threshold=2)
    loaded = KeyRing.load(tmp_path / "keys")
    assert key_ids(loaded) == key_ids(made)
    assert loaded.root_threshold == 2
    assert len(set(key_ids(made).values())) == 6


def test_nobody_else_can_read_the_files(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys", root_keys=1, root_threshold=1)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "keys").iterdir()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_existing_keys_are_never_overwritten(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys", root_keys=1, root_threshold=1)
    before = (tmp_path / "keys/targets.pem").read_bytes()
    with pytest.raises(ConfigError, match="not empty"):
        KeyRing.create(tmp_path / "keys", root_keys=1, root_threshold=1)
    assert (tmp_path / "keys/targets.pem").read_bytes() == before


def test_no_secret_is_shown(tmp_path: Path) -> None:
    keys = KeyRing.create(tmp_path / "keys", root_keys=1, root_threshold=1)
    shown = repr(keys) + str(keys)
    secrets = [
        line for s in keys.signers.values() for line in lines_of(s.private_bytes)
    ]
    assert len(secrets) == 4
    assert not any(secret in shown for secret in secrets)
    assert "root-1" in shown


def lines_of(pem: bytes) -> list[str]:
    return [line for line in pem.decode().splitlines() if "PRIVATE" not in line]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys", root_keys=1, root_threshold=1)
    (tmp_path / "keys/snapshot.pem").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyRing.load(tmp_path / "keys")


def test_a_damaged_key_is_refused_without_its_content(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys", root_keys=1, root_threshold=1)
    (tmp_path / "keys/snapshot.pem").write_text("secret text")
    with pytest.raises(ConfigError, match="not a PEM private key") as caught:
        KeyRing.load(tmp_path / "keys")
    assert "secret text" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_root_keys_may_be_kept_elsewhere(tmp_path: Path) -> None:
    KeyRing.create(tmp_path / "keys", root_keys=2, root_threshold=2)
    (tmp_path / "keys/root-1.pem").unlink()
    keys = KeyRing.load(tmp_path / "keys")
    assert len(keys.of_role("targets")) == 1
    with pytest.raises(ConfigError, match="1 private keys of the role 'root'"):
        keys.of_role("root")


@pytest.mark.parametrize(("count", "threshold"), [(3, 0), (3, 4), (0, 0)])
def test_an_impossible_threshold_is_refused(
    tmp_path: Path, count: int, threshold: int
) -> None:
    with pytest.raises(ConfigError, match="root_threshold"):
        KeyRing.create(tmp_path / "keys", root_keys=count, root_threshold=threshold)


def test_a_folder_without_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no complete set"):
        KeyRing.load(tmp_path)
