"""The model file inside a release: its digest, and the way out of its zstd frame."""

import hashlib

from fedge.compress.pack import unpack
from fedge.errors import DigestMismatchError

# Models for edge devices are a few megabytes; a frame that promises more is refused
# before a byte of it is unpacked.
MAX_UNPACKED_BYTES = 256 * 1024 * 1024


def digest(data: bytes) -> str:
    """Return SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def unpack_model(artifact: bytes, *, num_bytes: int, sha256: str) -> bytes:
    """Return the model file in `artifact`, once the artifact itself was verified.

    Guarantee: allocates no more than about `num_bytes`, whatever the frame claims.

    Args:
        artifact: one zstd frame that states its size, and nothing after it.
        num_bytes: signed size of the model file, at most `MAX_UNPACKED_BYTES`.
        sha256: signed digest of the model file, hex.

    Raises:
        VerificationError: not one whole frame, or it states a larger size.
        DigestMismatchError: it holds another model than the signed one.
    """
    model = unpack(artifact, max_bytes=min(num_bytes, MAX_UNPACKED_BYTES))
    if len(model) != num_bytes or digest(model) != sha256:
        raise DigestMismatchError(
            f"artifact: unpacks to {len(model)} bytes that are not the signed model "
            f"of {num_bytes} bytes"
        )
    return model
