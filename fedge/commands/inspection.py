"""What is in a file of secure aggregation, for people; never a secret."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedge.enrolment.key_files import private_from_pem, read_bytes, read_public
from fedge.errors import ConfigError, PeerError
from fedge.secagg.channel import STATEMENT_MAGIC, ChannelStatement
from fedge.secagg.identity import (
    CERTIFICATE_BYTES,
    CERTIFICATE_MAGIC,
    Certificate,
    SigningKey,
    check,
    fingerprint,
)
from fedge.secagg.roster import (
    MAX_MEMBERS,
    MEMBER_BYTES,
    ROSTER_MAGIC,
    Member,
    Roster,
    check_member,
    check_roster,
)

Document = Roster | Member | Certificate | ChannelStatement
_MAX_BYTES = 8 + MAX_MEMBERS * MEMBER_BYTES


@dataclass(frozen=True, slots=True)
class Report:
    """What to print, and whether the file was checked and found wrong."""

    lines: tuple[str, ...]
    refused: bool


def inspect_file(path: Path, *, enrolment_public: Path | None, now: int) -> Report:
    """Describe a file, and check it if the enrolment key's public half is given.

    Guarantee: nothing of a private key but its kind and its public half is shown.

    Args:
        path: a roster, member, certificate, statement or PEM key.
        enrolment_public: PEM file, or None to check nothing.
        now: unix time, seconds.

    Raises:
        ConfigError: a file cannot be read, or is none of these.
    """
    data = read_bytes(path, max_bytes=_MAX_BYTES)
    if data.startswith(b"-----BEGIN"):
        return Report(_key_lines(path, data), refused=False)
    try:
        document = _parse(data)
    except PeerError as exc:
        raise ConfigError(f"{path}: {exc}") from exc
    public = None if enrolment_public is None else read_public(enrolment_public)
    verdict, refused = _verdict(document, public, now)
    return Report((*_lines(document), f"validity: {verdict}"), refused)


def _parse(data: bytes) -> Document:
    magic = data[:4]
    if magic == ROSTER_MAGIC:
        return Roster.from_bytes(data)
    if magic == STATEMENT_MAGIC:
        return ChannelStatement.from_bytes(data)
    if magic == CERTIFICATE_MAGIC and len(data) > CERTIFICATE_BYTES:
        return Member.from_bytes(data)
    if magic == CERTIFICATE_MAGIC:
        return Certificate.from_bytes(data)
    raise PeerError("neither a roster, member, certificate, statement nor PEM key")


def _verdict(document: Document, public: bytes | None, now: int) -> tuple[str, bool]:
    if public is None:
        return "not checked (give --enrolment-public)", False
    try:
        match document:
            case Roster():
                check_roster(document, public, now=now)
            case Member():
                check_member(document, public, now=now)
            case Certificate():
                check(document, public, now=now)
            case ChannelStatement():
                return "not checked (a statement alone does not say whose it is)", False
    except PeerError as exc:
        return f"refused: {exc}", True
    return "valid", False


def _lines(document: Document) -> tuple[str, ...]:
    match document:
        case Roster():
            head = (f"roster: {len(document)} members", f"digest: {_hex(document)}")
            return head + tuple(" | ".join(_member(m)) for m in document.members)
        case Member():
            return ("member", *_member(document))
        case Certificate():
            return ("certificate", *_certificate(document))
        case ChannelStatement():
            return ("statement", f"uid {document.uid}", *_statement(document))


def _member(member: Member) -> tuple[str, ...]:
    return _certificate(member.certificate) + _statement(member.statement)


def _certificate(certificate: Certificate) -> tuple[str, ...]:
    return (
        f"uid {certificate.uid}",
        f"identity {fingerprint(certificate.identity_key)}",
        f"fast AES {'yes' if certificate.has_fast_aes else 'no'}",
        f"certified until {_date(certificate.not_after)}",
    )


def _statement(statement: ChannelStatement) -> tuple[str, ...]:
    return (
        f"channel key {fingerprint(statement.channel_key)}",
        f"epoch {statement.epoch}",
        f"channel until {_date(statement.not_after)}",
    )


def _key_lines(path: Path, pem: bytes) -> tuple[str, ...]:
    if b"PRIVATE" not in pem:
        return ("Ed25519 public key", f"fingerprint {fingerprint(read_public(path))}")
    try:
        key = private_from_pem(pem)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc}") from None
    kind = "Ed25519" if isinstance(key, SigningKey) else "X25519"
    return (
        f"{kind} private key (secret, not shown)",
        f"fingerprint of its public half {fingerprint(key.public)}",
    )


def _hex(roster: Roster) -> str:
    return roster.digest().hex()


def _date(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).isoformat()
