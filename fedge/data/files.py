"""Reading data files: only the very bytes that are expected, never more than expected.

A file is compared with its published checksum before anything looks into it, so a
damaged copy is named as such instead of failing somewhere in a parser. Nothing in here
downloads: every message says which file is missing and where the public knows it from.
"""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

from fedge.errors import DataError


def need_root(
    root: Path | None, *, name: str, sha256_by_file: Mapping[str, str], how_to_get: str
) -> Path:
    """Return `root`, or raise with the list of files that belong into it.

    Args:
        root: folder with the data sets' subfolders; None if nobody has named one.
        name: name of the data set, for the message.
        sha256_by_file: path below `root` -> checksum in hexadecimal.
        how_to_get: where the public finds the files, and of which bytes the
            checksums are if it is not the files themselves.

    Raises:
        DataError: `root` is None, or is not a folder.
    """
    if root is not None and root.is_dir():
        return root
    problem = "no folder is set" if root is None else f"{root} is not a folder"
    files = "".join(
        f"\n  {file}  sha256 {sha256}" for file, sha256 in sha256_by_file.items()
    )
    raise DataError(
        f"{name}: {problem}; set data.root=<folder>, or FEDGE_DATA_ROOT on a device. "
        f"Expected in that folder:{files}\nSource: {how_to_get}"
    )


def read_checked(path: Path, *, sha256: str, max_bytes: int, how_to_get: str) -> bytes:
    """Return the content of a file after comparing its checksum.

    Guarantee: what is returned has the checksum `sha256`; at most `max_bytes` + 1
    bytes are ever read.

    Args:
        path: the file.
        sha256: checksum of its content, hexadecimal.
        max_bytes: largest size in bytes that is read at all.
        how_to_get: where the public finds the file, for the message.

    Raises:
        DataError: missing, unreadable, too large, truncated or altered.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as exc:
        raise DataError(
            f"{path}: cannot be read ({exc.strerror}); expected a file with sha256 "
            f"{sha256}. Source: {how_to_get}"
        ) from exc
    if len(content) > max_bytes:
        raise DataError(
            f"{path}: more than {max_bytes} bytes; this is not the expected file. "
            f"Source: {how_to_get}"
        )
    check_sha256(content, sha256, path=path, how_to_get=how_to_get)
    return content


def read_gzip_checked(
    path: Path, *, sha256: str, num_bytes: int, how_to_get: str
) -> bytes:
    """Return the decompressed content of a gzip file after comparing its checksum.

    The checksum is that of the decompressed bytes, because one content has many
    compressed forms.

    Guarantee: what is returned has the checksum `sha256`; at most `num_bytes` + 1
    bytes are ever decompressed, however far the file would unfold.

    Args:
        path: the file.
        sha256: checksum of the decompressed content, hexadecimal.
        num_bytes: size of the decompressed content in bytes.
        how_to_get: where the public finds the file, for the message.

    Raises:
        DataError: missing, unreadable, not gzip, of another size, or altered.
    """
    try:
        with gzip.open(path, "rb") as file:
            content = file.read(num_bytes + 1)
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(
            f"{path}: cannot be read ({exc}); expected gzip with {num_bytes} bytes in "
            f"it. Source: {how_to_get}"
        ) from exc
    if len(content) != num_bytes:
        found = f"{len(content)}" if len(content) < num_bytes else f"over {num_bytes}"
        raise DataError(
            f"{path}: holds {found} bytes, expected {num_bytes}. Source: {how_to_get}"
        )
    check_sha256(content, sha256, path=path, how_to_get=how_to_get)
    return content


def check_sha256(content: bytes, sha256: str, *, path: Path, how_to_get: str) -> None:
    """Raise DataError unless `content`, read from `path`, has this checksum."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path}: {len(content)} bytes with sha256 {found}, expected {sha256}; the "
            f"file is damaged, truncated or another version. Source: {how_to_get}"
        )
