"""Who a client is in a secure session, and what it insists on.

Either a folder that an operator made with `fedge secagg enroll` (node config
`secagg-dir`): then everybody in a session must be certified by the same enrolment key.
Or, without one, keys that the client makes for itself and keeps in its context: that
protects against a curious server, but not against one that makes up participants.
"""

import os
import secrets
from functools import lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Context

from fedge.enrolment.folders import machine_has_fast_aes, read_credentials
from fedge.enrolment.key_files import read_public
from fedge.errors import ConfigError
from fedge.secagg.channel import ChannelKey, make_statement
from fedge.secagg.identity import FAST_AES, MAX_NOT_AFTER, SigningKey, issue
from fedge.secagg.policy import Policy
from fedge.secagg.roster import Credentials, Member

_RECORD = "fedge.secagg.credentials"
ENROLMENT_PUBLIC = "enrolment.pub"


def policy_of(context: Context) -> Policy:
    """Return the floors of a client, from its own node config.

    `secagg-min-cohort` (participants and survivors), `secagg-malicious` (only sessions
    with the consistency trip) and `secagg-max-weight` (largest weight scale).

    Raises:
        ConfigError: an entry is malformed or out of range.
    """
    floor = context.node_config.get("secagg-min-cohort", Policy().min_participants)
    malicious = context.node_config.get("secagg-malicious", False)
    if type(floor) is not int or not isinstance(malicious, bool):
        raise ConfigError(
            "node config secagg-min-cohort or secagg-malicious: malformed"
        )
    max_weight = context.node_config.get("secagg-max-weight", Policy().max_weight)
    if not isinstance(max_weight, int | float):
        raise ConfigError(f"node config secagg-max-weight: {max_weight!r} is no number")
    folder = _folder(context)
    return Policy(
        min_participants=floor,
        min_survivors=floor,
        require_malicious=malicious,
        max_weight=float(max_weight),
        enrolment_key=_read_public(folder / ENROLMENT_PUBLIC) if folder else b"",
    )


def credentials_of(context: Context) -> Credentials:
    """Return a client's keys: from its folder, or made at the first call.

    Raises:
        ConfigError: the folder is incomplete or damaged.
    """
    folder = _folder(context)
    if folder is not None:
        return _read(folder)
    record = context.state.get(_RECORD)
    if not isinstance(record, ConfigRecord):
        made = _self_certified()
        context.state[_RECORD] = ConfigRecord(
            {
                "member": made.member.to_bytes(),
                "identity": made.identity.to_bytes(),
                "channel": made.channel.to_bytes(),
            }
        )
        return made
    return Credentials(
        Member.from_bytes(_bytes(record, "member")),
        SigningKey.from_bytes(_bytes(record, "identity")),
        ChannelKey.from_bytes(_bytes(record, "channel")),
    )


# Four messages a round need them, and in a simulation every device is in one process.
@lru_cache(maxsize=4096)
def _read(folder: Path) -> Credentials:
    return read_credentials(folder)


@lru_cache(maxsize=4096)
def _read_public(file: Path) -> bytes:
    return read_public(file)


def _self_certified() -> Credentials:
    identity, channel = SigningKey.generate(), ChannelKey.generate()
    uid = 1 + secrets.randbelow(2**32 - 1)
    certificate = issue(
        identity,
        uid=uid,
        identity_key=identity.public,
        caps=FAST_AES if machine_has_fast_aes() else 0,
        not_after=MAX_NOT_AFTER,
    )
    statement = make_statement(
        identity,
        uid=uid,
        epoch=0,
        channel_key=channel.public,
        not_after=MAX_NOT_AFTER,
    )
    return Credentials(Member(certificate, statement), identity, channel)


def _bytes(record: ConfigRecord, name: str) -> bytes:
    value = record.get(name)
    if not isinstance(value, bytes):
        raise ConfigError(f"stored credentials: {name} is damaged")
    return value


def _folder(context: Context) -> Path | None:
    folder = context.node_config.get("secagg-dir", "")
    if not isinstance(folder, str | os.PathLike):
        raise ConfigError(f"node config secagg-dir: {folder!r} must be text")
    return Path(folder) if folder else None
