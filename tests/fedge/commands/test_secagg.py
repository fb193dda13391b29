import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedge.__main__ import main
from fedge.enrolment.folders import has_fast_aes, read_credentials, read_member
from fedge.enrolment.key_files import pem_of_key, read_public
from fedge.errors import ConfigError
from fedge.secagg.channel import ChannelKey
from fedge.secagg.identity import SigningKey
from fedge.secagg.roster import Roster, check_roster
from tests.fedge.commands.kit import enroll_device, fedge, make_roster

REPOSITORY = Path(__file__).resolve().parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_readable_by_their_owner_only(site: Path) -> None:
    secrets = [site / "owner/enrolment.pem", site / "d1/identity.pem"]
    assert [mode(path) for path in [*secrets, site / "d1/channel.pem"]] == [0o600] * 3
    assert mode(site / "owner") == 0o700
    assert mode(site / "d1") == 0o700


def test_an_enrolment_key_is_never_overwritten(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (site / "owner/enrolment.pem").read_bytes()
    assert fedge("enroll", "create-key", site / "owner") == 2
    assert "not empty; choose a new folder" in capsys.readouterr().err
    assert (site / "owner/enrolment.pem").read_bytes() == before


def test_a_device_is_never_overwritten(site: Path) -> None:
    before = (site / "d1/identity.pem").read_bytes()
    assert enroll_device(site, 9, out="d1") == 2
    assert (site / "d1/identity.pem").read_bytes() == before


def test_devices_make_a_roster_that_holds(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_roster(site, site / "d3", site / "d1/member.bin", site / "d2") == 0
    roster = Roster.from_bytes((site / "roster.bin").read_bytes())
    public = read_public(site / "owner/enrolment.pub")
    check_roster(roster, public, now=int(time.time()))
    assert [member.uid for member in roster.members] == [1, 2, 3]
    assert roster.digest().hex() in capsys.readouterr().out


def test_a_roster_can_be_made_again(site: Path) -> None:
    assert make_roster(site, site / "d1", site / "d2") == 0
    assert make_roster(site, site / "d1", site / "d2", site / "d3") == 0
    assert len(Roster.from_bytes((site / "roster.bin").read_bytes())) == 3
    assert not list(site.glob("*.tmp"))


def test_a_device_loads_what_was_made_for_it(site: Path) -> None:
    credentials = read_credentials(site / "d2")
    assert credentials.member == read_member(site / "d2")
    assert credentials.member.uid == 2
    assert read_public(site / "d2/enrolment.pub") == read_public(
        site / "owner/enrolment.pub"
    )


def test_keys_of_another_device_are_not_loaded(site: Path) -> None:
    (site / "d2/identity.pem").write_bytes((site / "d1/identity.pem").read_bytes())
    with pytest.raises(ConfigError, match="uid 2: the private keys do not belong"):
        read_credentials(site / "d2")


@pytest.mark.parametrize(("choice", "expected"), [("yes", True), ("no", False)])
def test_the_device_says_whether_it_has_fast_aes(
    site: Path, choice: str, expected: bool
) -> None:
    assert enroll_device(site, 8, "--fast-aes", choice) == 0
    assert read_member(site / "d8").certificate.has_fast_aes is expected


@pytest.mark.parametrize(
    ("cpu_info", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse aes avx\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n", False),
        ("model name\t: aes\nflags\t\t: fpu vaes\n", False),
        ("", False),
    ],
)
def test_aes_instructions_are_found_among_the_features(
    cpu_info: str, expected: bool
) -> None:
    assert has_fast_aes(cpu_info) is expected


def test_a_certificate_lasts_as_many_days_as_asked(site: Path) -> None:
    assert enroll_device(site, 8, "--days", 2) == 0
    left = read_member(site / "d8").certificate.not_after - time.time()
    assert 2 * 86_400 - 60 < left <= 2 * 86_400


def test_one_number_given_twice_is_found(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enroll_device(site, 1, out="again") == 0
    assert make_roster(site, site / "d1", site / "again") == 2
    assert "uid 1: it has the same uid" in capsys.readouterr().err


def test_a_key_that_others_can_read_is_refused(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "owner/enrolment.pem").chmod(0o640)
    assert enroll_device(site, 8) == 2
    assert "run chmod 600 on it" in capsys.readouterr().err
    assert not (site / "d8").exists()


def test_a_key_of_another_kind_is_refused(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "owner/enrolment.pem").write_bytes(pem_of_key(ChannelKey.generate()))
    assert enroll_device(site, 8) == 2
    assert "not an Ed25519 private key" in capsys.readouterr().err
    (site / "d1/channel.pem").write_bytes(pem_of_key(SigningKey.generate()))
    with pytest.raises(ConfigError, match="not an X25519 private key"):
        read_credentials(site / "d1")


def test_a_number_out_of_range_makes_no_folder(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enroll_device(site, 0) == 2
    assert "uid 0 not in [1, 4294967295]" in capsys.readouterr().err
    assert not (site / "d0").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["secagg"],
        ["secagg", "enroll"],
        ["secagg", "enroll", "device", "--uid", "1"],
        ["secagg", "roster", "--out", "x"],
        ["secagg", "inspect"],
        ["secagg", "wrong"],
    ],
)
def test_wrong_arguments_end_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize("days", ["0", "36501", "x"])
def test_a_wrong_number_of_days_ends_with_2(site: Path, days: str) -> None:
    with pytest.raises(SystemExit) as ended:
        enroll_device(site, 8, "--days", days)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["secagg", "--help"], ["enroll", "roster", "inspect"]),
        (["secagg", "enroll", "--help"], ["away from the aggregation", "create-key"]),
        (["secagg", "enroll", "device", "--help"], ["--fast-aes", "keep no copy"]),
        (["secagg", "roster", "--help"], ["--enrolment-public", "replaced"]),
        (["secagg", "inspect", "--help"], ["never", "code 1"]),
    ],
)
def test_help_says_what_to_do(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in shown] == []


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    ended = run_python("-m", "fedge", "secagg", "inspect", "nothing", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("fedge: nothing: cannot be read")
    assert ended.stdout == ""


def test_the_command_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, fedge.__main__\n"
        "assert 'cryptography' not in sys.modules\n"
        "import fedge.enrolment.folders, fedge.commands.inspection\n"
        "heavy = {'torch', 'flwr', 'numpy', 'hydra', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = run_python("-c", code, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_without_its_libraries_the_command_says_what_to_install(
    tmp_path: Path,
) -> None:
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from fedge.__main__ import main\n"
        "sys.exit(main(['secagg', 'enroll', 'create-key', 'owner']))"
    )
    ended = run_python("-c", code, folder=tmp_path)
    assert ended.returncode == 2
    assert "pip install 'fedge[device]'" in ended.stderr
