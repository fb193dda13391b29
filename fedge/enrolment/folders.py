"""Enrolling devices: an enrolment key's folder, a device's folder, a roster's file.

A device's folder holds identity.pem and channel.pem (its secrets), member.bin (public:
certificate and statement), and enrolment.pub, by which it knows the other members. What
is not in here: what is printed.
"""

from collections.abc import Iterable
from pathlib import Path

from fedge.enrolment.key_files import (
    PUBLIC_MODE,
    SECRET_MODE,
    make_new_folder,
    pem_of_key,
    pem_of_public,
    read_bytes,
    read_channel_key,
    read_public,
    read_signing_key,
    write_new,
    write_replacing,
)
from fedge.errors import ConfigError, PeerError
from fedge.secagg.identity import FAST_AES, SigningKey, fingerprint
from fedge.secagg.roster import (
    MEMBER_BYTES,
    Credentials,
    Member,
    Roster,
    check_roster,
    enroll,
)

ENROLMENT_KEY = "enrolment.pem"
ENROLMENT_PUBLIC = "enrolment.pub"
IDENTITY_KEY = "identity.pem"
CHANNEL_KEY = "channel.pem"
MEMBER = "member.bin"
_CPU_INFO = Path("/proc/cpuinfo")


def create_key(folder: Path) -> str:
    """Make a federation's enrolment key in a new folder; return its fingerprint.

    Guarantee: an existing key is never overwritten; the secret is its owner's only.

    Raises:
        ConfigError: the folder is not empty, or cannot be written.
    """
    make_new_folder(folder)
    key = SigningKey.generate()
    write_new(folder / ENROLMENT_KEY, pem_of_key(key), mode=SECRET_MODE)
    write_new(folder / ENROLMENT_PUBLIC, pem_of_public(key.public), mode=PUBLIC_MODE)
    return fingerprint(key.public)


def enroll_device(
    key_file: Path, folder: Path, *, uid: int, fast_aes: bool, not_after: int
) -> str:
    """Make a device's folder; return the fingerprint of its identity.

    Args:
        key_file: the enrolment key.
        folder: new or empty.
        uid: the device's number.
        fast_aes: whether AES is the faster cipher there.
        not_after: last second of validity, unix time.

    Raises:
        ConfigError: a value is out of range, or a file cannot be read or written.
    """
    enrolment = read_signing_key(key_file)
    caps = FAST_AES if fast_aes else 0
    made = enroll(enrolment, uid=uid, caps=caps, not_after=not_after)
    make_new_folder(folder)
    write_new(folder / IDENTITY_KEY, pem_of_key(made.identity), mode=SECRET_MODE)
    write_new(folder / CHANNEL_KEY, pem_of_key(made.channel), mode=SECRET_MODE)
    write_new(folder / MEMBER, made.member.to_bytes(), mode=PUBLIC_MODE)
    public = pem_of_public(enrolment.public)
    write_new(folder / ENROLMENT_PUBLIC, public, mode=PUBLIC_MODE)
    return fingerprint(made.identity.public)


def read_credentials(folder: Path) -> Credentials:
    """Return what `enroll_device` made.

    Raises:
        ConfigError: a file is missing, damaged, readable by others, or from another
            device.
    """
    return Credentials(
        read_member(folder),
        read_signing_key(folder / IDENTITY_KEY),
        read_channel_key(folder / CHANNEL_KEY),
    )


def read_member(path: Path) -> Member:
    """Return the member in a file, or in the folder of a device; not verified.

    Raises:
        ConfigError: there is none.
    """
    file = path / MEMBER if path.is_dir() else path
    try:
        return Member.from_bytes(read_bytes(file, max_bytes=MEMBER_BYTES))
    except PeerError as exc:
        raise ConfigError(f"{file}: {exc}") from exc


def write_roster(
    members: Iterable[Path], out: Path, *, enrolment_public: Path, now: int
) -> Roster:
    """Check all members at `now` (unix seconds) and write them into one file.

    Raises:
        ConfigError: a file cannot be read or written.
        PeerError: a member is not valid, or two are the same; nothing was written.
    """
    public = read_public(enrolment_public)
    roster = Roster(read_member(path) for path in members)
    check_roster(roster, public, now=now)
    write_replacing(out, roster.to_bytes())
    return roster


def machine_has_fast_aes() -> bool:
    """Look whether this machine has AES instructions; no if it does not say."""
    try:
        return has_fast_aes(_CPU_INFO.read_text(errors="replace"))
    except OSError:
        return False


def has_fast_aes(cpu_info: str) -> bool:
    """Find AES among the features in a text like Linux' /proc/cpuinfo."""
    named = (line.partition(":") for line in cpu_info.splitlines())
    return any(
        name.strip() in {"flags", "Features"} and "aes" in features.split()
        for name, _, features in named
    )
