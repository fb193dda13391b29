from pathlib import Path

import pytest

from fedge.enrolment.folders import read_member
from fedge.enrolment.key_files import read_signing_key
from fedge.secagg.identity import SigningKey
from fedge.secagg.roster import enroll
from tests.fedge.commands.kit import fedge, inspect, make_roster


@pytest.mark.parametrize("file", ["roster.bin", "d1/member.bin"])
def test_a_valid_file_is_called_valid(
    site: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_roster(site, site / "d1", site / "d2", site / "d3") == 0
    assert inspect(site, site / file) == 0
    shown = capsys.readouterr().out
    assert "validity: valid" in shown
    assert "uid 1" in shown
    assert "epoch 0" in shown


def test_a_file_is_not_called_valid_unchecked(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedge("inspect", site / "d1/member.bin") == 0
    assert "validity: not checked" in capsys.readouterr().out


def test_certificates_and_statements_are_shown_alone(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    member = read_member(site / "d1")
    (site / "certificate").write_bytes(member.certificate.to_bytes())
    (site / "statement").write_bytes(member.statement.to_bytes())
    assert inspect(site, site / "certificate") == 0
    assert "validity: valid" in capsys.readouterr().out
    assert inspect(site, site / "statement") == 0
    assert "a statement alone does not say" in capsys.readouterr().out


def test_an_expired_or_foreign_member_is_shown_and_refused(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = read_signing_key(site / "owner/enrolment.pem")
    old = enroll(owner, uid=5, caps=0, not_after=1_000_000_000).member
    foreign = enroll(SigningKey.generate(), uid=6, caps=0, not_after=2**32).member
    (site / "old").write_bytes(old.to_bytes())
    (site / "foreign").write_bytes(foreign.to_bytes())
    assert inspect(site, site / "old") == 1
    shown = capsys.readouterr().out
    assert "certified until 2001-09-09T01:46:40+00:00" in shown
    assert "validity: refused: uid 5: its certificate expired" in shown
    assert inspect(site, site / "foreign") == 1
    assert "refused: uid 6: its certificate is not from" in capsys.readouterr().out
    assert make_roster(site, site / "d1", site / "old") == 2
    assert "uid 5" in capsys.readouterr().err
    assert not (site / "roster.bin").exists()


@pytest.mark.parametrize(
    "file", ["owner/enrolment.pem", "d1/identity.pem", "d1/channel.pem"]
)
def test_no_command_shows_a_secret(
    site: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (site / file).read_text().splitlines()
    secret = next(line for line in lines if "PRIVATE" not in line)
    assert inspect(site, site / file) == 0
    public = ("--enrolment-public", site / file)
    assert fedge("roster", *public, site / "d1", "--out", site / "r") == 2
    assert make_roster(site, site / file) == 2
    shown = "".join(capsys.readouterr())
    assert "private key (secret, not shown)" in shown
    assert secret not in shown
    # The seed is the last 32 bytes of the key: 43 characters of base64.
    assert secret[-40:] not in shown


def test_public_keys_are_shown_by_their_fingerprint(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fedge("enroll", "create-key", site / "second") == 0
    fingerprint = capsys.readouterr().out.split("fingerprint ")[-1].split()[0]
    assert fedge("inspect", site / "second/enrolment.pub") == 0
    assert f"fingerprint {fingerprint}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty", b"", "neither a roster"),
        ("text", b"hello", "neither a roster"),
        ("cut", b"fsR1\1\0\0\0", "need"),
        ("short", b"fsC1", "need exactly"),
        ("pem", b"-----BEGIN PRIVATE KEY-----\nsecret\n", "not a PEM private key"),
        ("public", b"-----BEGIN PUBLIC KEY-----\nsecret\n", "not a PEM public key"),
    ],
)
def test_a_wrong_file_ends_with_2_and_its_name(
    tmp_path: Path,
    name: str,
    content: bytes,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_bytes(content)
    assert fedge("inspect", tmp_path / name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fedge: {tmp_path / name}: ")
    assert message in error
    assert "secret" not in error
