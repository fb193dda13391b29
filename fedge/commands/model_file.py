"""`fedge inspect FILE`: what is in a model, a packed release, a delta or a passport."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedge.errors import DataError

if TYPE_CHECKING:
    # A plain import would need a private name at run time.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_ZSTD, _DELTA = b"\x28\xb5\x2f\xfd", b"FEDGE-D1"
_MAX_MB = 1024


def add_command(commands: "Subparsers") -> None:
    """Add `inspect` to the parser of `fedge`."""
    summary = "say what is in a model file, a packed release, a delta or a passport"
    parser = commands.add_parser("inspect", help=summary, description=summary)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--max-mb",
        type=int,
        default=32,  # models for edge devices are a few megabytes
        metavar="N",
        help="refuse files that are larger, packed or not (default: %(default)s)",
    )
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.max_mb <= _MAX_MB:
        raise DataError(f"--max-mb: {arguments.max_mb} not in [1, {_MAX_MB}]")
    from fedge.commands.passport_text import passport_lines, read_passport

    max_bytes = arguments.max_mb << 20
    data = _read(arguments.file, max_bytes)
    print(f"{arguments.file}: {len(data)} bytes")
    if data.startswith(_DELTA):
        _show_delta(data)
        return 0
    if data.startswith(_ZSTD):
        from fedge.compress.pack import unpack

        data = unpack(data, max_bytes=max_bytes)
        print(f"packed with zstd, unpacked: {len(data)} bytes")
    passport = read_passport(arguments.file)
    if arguments.file.suffix != ".json":
        _show_model(data)
    elif passport is None:
        raise DataError(f"{arguments.file}: not a passport")
    if passport is not None:
        model = None if arguments.file.suffix == ".json" else data
        print("\n".join(passport_lines(passport, model)))
    return 0


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            # A file that is too large costs nothing; a pipe has no size.
            is_large = os.fstat(file.fileno()).st_size > max_bytes
            data = b"" if is_large else file.read(max_bytes + 1)
    except OSError as exc:
        raise DataError(f"{path}: {exc.strerror}") from exc
    if is_large or len(data) > max_bytes:
        raise DataError(f"{path}: more than {max_bytes >> 20} MB (--max-mb)")
    return data


def _show_delta(data: bytes) -> None:
    from fedge.compress.delta import read_header

    header = read_header(data)
    print("delta: a whole file" if header.is_full else "delta: a difference")
    if not header.is_full:
        print(f"made for SHA-256 {header.base_sha256.hex()}")
    print(f"gives    SHA-256 {header.sha256.hex()}")


def _show_model(data: bytes) -> None:
    from fedge.export.describe import describe

    found = describe(data)
    for label, values in (("input", found.inputs), ("output", found.outputs)):
        for value in values:
            print(f"{label}: {value}")
    print(f"numbers: {found.quantization}")
    print(f"weights: {found.num_weights}, {found.sparsity:.1%} of them zero")
    print(f"multiplications for one example: {found.macs:.0f}")
    sizes = (f"{size} {dtype}" for dtype, size in found.bytes_by_dtype.items())
    print(f"bytes of arrays: {', '.join(sizes)}")
    counts = (f"{count} {name}" for name, count in found.operators.items())
    print(f"operators: {', '.join(counts)}")
