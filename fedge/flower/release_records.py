"""A release bundle in a Flower message: files as byte arrays, which Flower chunks."""

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fedge.errors import PeerError
from fedge.flower.records import array_of, read_array
from fedge.release.bundle import ReleaseBundle

_METADATA, _TARGETS = "release-metadata", "release-targets"


def content_of(bundle: ReleaseBundle) -> RecordDict:
    """Return a message's content that holds the bundle."""
    parts = {_METADATA: bundle.metadata, _TARGETS: bundle.targets}
    return RecordDict(
        {
            key: ArrayRecord({name: _array(data) for name, data in files.items()})
            for key, files in parts.items()
        }
    )


def bundle_of(content: RecordDict) -> ReleaseBundle:
    """Return the bundle in a message; nothing in it is trusted yet.

    Raises:
        PeerError: a record is missing or does not hold bytes.
        VerificationError: a name or a size is not allowed.
    """
    return ReleaseBundle(
        metadata=_files(content, _METADATA), targets=_files(content, _TARGETS)
    )


def _array(data: bytes) -> Array:
    return array_of(np.frombuffer(data, np.uint8))


def _files(content: RecordDict, key: str) -> dict[str, bytes]:
    record = content.get(key)
    if not isinstance(record, ArrayRecord):
        raise PeerError(f"message: array record {key!r} is missing")
    return {name: _bytes(name, array) for name, array in record.items()}


def _bytes(name: str, array: Array) -> bytes:
    values = read_array(array)
    if values.dtype != np.uint8 or values.ndim != 1:
        raise PeerError(
            f"file {name[:99]!r}: {values.dtype} {values.shape}, need bytes"
        )
    return values.tobytes()
