"""The command as the tests call it, on the folders of a small federation."""

from pathlib import Path

from fedge.__main__ import main


def fedge(*arguments: object) -> int:
    return main(["secagg", *map(str, arguments)])


def enroll_device(site: Path, uid: int, *more: object, out: str = "") -> int:
    key, folder = site / "owner/enrolment.pem", site / (out or f"d{uid}")
    return fedge("enroll", "device", "--key", key, "--uid", uid, "--out", folder, *more)


def make_roster(site: Path, *members: object) -> int:
    public = ("--enrolment-public", site / "owner/enrolment.pub")
    return fedge("roster", *public, *members, "--out", site / "roster.bin")


def inspect(site: Path, file: object) -> int:
    return fedge("inspect", file, "--enrolment-public", site / "owner/enrolment.pub")
