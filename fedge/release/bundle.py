"""A release on its way to a device: named bytes, and TUF's way of reading them.

Devices get a release inside one message, not over HTTP. Nothing in a bundle is trusted;
only names and sizes are checked here, before anything is parsed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from fedge.errors import VerificationError
from fedge.release.artifact import MAX_UNPACKED_BYTES

# The Fetcher's addresses: only the part after this is ever looked at.
BASE_URL = "bundle:///"

MAX_METADATA_FILES = 64  # every root since the first one, and the three other roles
MAX_METADATA_BYTES = 5_000_000  # TUF's own limit for targets metadata
MAX_TARGETS = 8
MAX_TARGET_BYTES = MAX_UNPACKED_BYTES
MAX_TOTAL_BYTES = MAX_TARGET_BYTES + MAX_METADATA_BYTES

_METADATA_NAME = re.compile(
    r"timestamp\.json|[1-9][0-9]{0,8}\.(root|snapshot|targets)\.json"
)
_TARGET_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ReleaseBundle:
    """Metadata files by name, artifacts by target path.

    Guarantee: no name in here can lead out of a folder.

    Attributes:
        metadata: "timestamp.json", "2.snapshot.json", "3.root.json", ...
        targets: "model.onnx.zst", ...; one path segment.

    Raises:
        VerificationError: a name is not allowed, or too many or too large files.
    """

    metadata: Mapping[str, bytes]
    targets: Mapping[str, bytes]

    def __post_init__(self) -> None:
        _check_files("metadata", self.metadata, MAX_METADATA_FILES, MAX_METADATA_BYTES)
        _check_files("target", self.targets, MAX_TARGETS, MAX_TARGET_BYTES)
        for name in self.metadata:
            if not _METADATA_NAME.fullmatch(name):
                raise VerificationError(f"bundle: metadata name {name[:99]!r}")
        for path in self.targets:
            check_target_path(path)
        if self.num_bytes > MAX_TOTAL_BYTES:
            raise VerificationError(
                f"bundle: {self.num_bytes} bytes, at most {MAX_TOTAL_BYTES}"
            )

    @property
    def num_bytes(self) -> int:
        """Size of everything in here."""
        files = (*self.metadata.values(), *self.targets.values())
        return sum(len(data) for data in files)


def check_target_path(path: str) -> None:
    """Raise VerificationError unless `path` is one plain file name."""
    if not _TARGET_PATH.fullmatch(path):
        raise VerificationError(
            f"bundle: target path {path[:99]!r} must be 1 to 100 letters, digits, "
            ". _ or -, and begin with a letter or digit"
        )


def _check_files(
    what: str, files: Mapping[str, bytes], max_files: int, max_bytes: int
) -> None:
    if len(files) > max_files:
        raise VerificationError(
            f"bundle: {len(files)} {what} files, at most {max_files}"
        )
    for name, data in files.items():
        if not isinstance(name, str) or not isinstance(data, bytes):
            raise VerificationError(f"bundle: {what} files must be text to bytes")
        if len(data) > max_bytes:
            raise VerificationError(
                f"bundle: {what} {name[:99]!r} has {len(data)} bytes, at most "
                f"{max_bytes}"
            )


class BundleFetcher(FetcherInterface):
    """Lets TUF's client read the metadata of a bundle as if it were downloaded."""

    def __init__(self, bundle: ReleaseBundle) -> None:
        self._bundle = bundle

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = urlsplit(url).path.lstrip("/")
        data = self._bundle.metadata.get(name)
        if data is None:
            raise DownloadHTTPError(f"{name} is not in the bundle", 404)
        return iter((data,))
