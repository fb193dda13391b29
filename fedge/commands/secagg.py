"""`fedge secagg`: its arguments, and what each subcommand prints.

The work is done in `enrolment` and `inspection`, which are loaded when they are needed.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # A plain import would need a private name at run time.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_DAY_SECONDS = 86_400
_MAX_DAYS = 36_500

_ENROLL = """\
The enrolment key says who belongs to the federation. Keep it away from the aggregation
server: whoever has it can invent participants and see single updates."""

_DEVICE = """\
Make a device's keys and its certificate in a new folder. Move the folder to the device
and keep no copy of the two .pem files: they are the device's secrets. Only member.bin,
which is public, goes to the coordinator. Never give a number to two devices."""


def add_command(commands: "Subparsers") -> None:
    """Add `secagg` and its subcommands to the parser of `fedge`."""
    summary = "secure aggregation: keys, certificates, rosters"
    parser = commands.add_parser("secagg", help=summary, description=summary)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_enroll(actions)
    _add_roster(actions)
    _add_inspect(actions)


def _add_enroll(actions: "Subparsers") -> None:
    enroll = actions.add_parser(
        "enroll", help="make the enrolment key, or a device's keys", description=_ENROLL
    )
    kinds = enroll.add_subparsers(required=True, metavar="WHAT")
    key = kinds.add_parser(
        "create-key",
        help="make the enrolment key, once per federation",
        description=f"Make the enrolment key, once per federation. {_ENROLL}",
    )
    key.add_argument(
        "folder", type=Path, metavar="DIR", help="gets enrolment.pem (secret) and .pub"
    )
    key.set_defaults(run=_create_key)
    device = kinds.add_parser(
        "device", help="make and certify a device's keys", description=_DEVICE
    )
    _add_device_arguments(device)
    device.set_defaults(run=_enroll_device)


def _add_device_arguments(device: argparse.ArgumentParser) -> None:
    device.add_argument(
        "--key", type=Path, required=True, metavar="FILE", help="enrolment.pem"
    )
    device.add_argument(
        "--uid", type=int, required=True, metavar="N", help="1 to 4294967295, used once"
    )
    device.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new or empty folder"
    )
    device.add_argument(
        "--fast-aes",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether the device has AES instructions; auto (the default) looks at "
        "the machine this runs on, so say yes or no when that is another one",
    )
    device.add_argument(
        "--days",
        type=_days,
        default=365,
        metavar="N",
        help="how long it is valid; 365 if not given",
    )


def _add_roster(actions: "Subparsers") -> None:
    roster = actions.add_parser(
        "roster",
        help="put the members of a federation into one file",
        description="Check all members and write them into one file for coordinator "
        "and devices. An older file of that name is replaced.",
    )
    _add_enrolment_public(roster, required=True)
    roster.add_argument(
        "members",
        type=Path,
        nargs="+",
        metavar="MEMBER",
        help="member.bin, or a folder that holds it",
    )
    roster.add_argument("--out", type=Path, required=True, metavar="FILE")
    roster.set_defaults(run=_write_roster)


def _add_inspect(actions: "Subparsers") -> None:
    inspect = actions.add_parser(
        "inspect",
        help="show what is in a file, never its secrets",
        description="Show a roster, member, certificate, statement or key file, but "
        "never a secret. Exit code 1 if it was checked (--enrolment-public) and is "
        "not valid.",
    )
    inspect.add_argument("file", type=Path, metavar="FILE")
    _add_enrolment_public(inspect, required=False)
    inspect.set_defaults(run=_inspect)


def _add_enrolment_public(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--enrolment-public",
        type=Path,
        required=required,
        metavar="FILE",
        help="enrolment.pub, against which everything is checked",
    )


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= _MAX_DAYS:
        raise argparse.ArgumentTypeError(f"{days} not in [1, {_MAX_DAYS}]")
    return days


def _create_key(arguments: argparse.Namespace) -> int:
    from fedge.enrolment import folders

    fingerprint = folders.create_key(arguments.folder)
    print(f"enrolment key in {arguments.folder}, fingerprint {fingerprint}")
    print("every device gets a copy of enrolment.pub; enrolment.pem stays with you")
    return 0


def _enroll_device(arguments: argparse.Namespace) -> int:
    from fedge.enrolment import folders

    fast_aes = {"yes": True, "no": False, "auto": None}[arguments.fast_aes]
    fingerprint = folders.enroll_device(
        arguments.key,
        arguments.out,
        uid=arguments.uid,
        fast_aes=folders.machine_has_fast_aes() if fast_aes is None else fast_aes,
        not_after=int(time.time()) + arguments.days * _DAY_SECONDS,
    )
    print(f"device {arguments.uid} in {arguments.out}, fingerprint {fingerprint}")
    return 0


def _write_roster(arguments: argparse.Namespace) -> int:
    from fedge.enrolment import folders

    roster = folders.write_roster(
        arguments.members,
        arguments.out,
        enrolment_public=arguments.enrolment_public,
        now=int(time.time()),
    )
    print(f"{arguments.out}: {len(roster)} members, digest {roster.digest().hex()}")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from fedge.commands import inspection

    report = inspection.inspect_file(
        arguments.file,
        enrolment_public=arguments.enrolment_public,
        now=int(time.time()),
    )
    print("\n".join(report.lines))
    return 1 if report.refused else 0
