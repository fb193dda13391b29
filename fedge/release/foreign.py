"""TUF's and securesystemslib's errors in our words: by what the device does next."""

from collections.abc import Iterator
from contextlib import contextmanager

from securesystemslib import exceptions as signing
from tuf.api import exceptions as tuf
from tuf.api.serialization import DeserializationError, SerializationError

from fedge.errors import (
    BadSignatureError,
    DigestMismatchError,
    ExpiredError,
    RolledBackError,
    VerificationError,
)

# The first class that fits decides, so a subclass stands before its base.
OUR_ERROR_BY_FOREIGN: dict[type[Exception], type[VerificationError]] = {
    tuf.UnsignedMetadataError: BadSignatureError,
    DeserializationError: BadSignatureError,  # damaged, or a signature listed twice
    tuf.EqualVersionNumberError: RolledBackError,
    tuf.BadVersionNumberError: RolledBackError,
    tuf.ExpiredMetadataError: ExpiredError,
    tuf.LengthOrHashMismatchError: DigestMismatchError,
    tuf.DownloadLengthMismatchError: DigestMismatchError,
    tuf.DownloadHTTPError: VerificationError,  # not in the bundle
    tuf.SlowRetrievalError: VerificationError,
    tuf.DownloadError: VerificationError,
    SerializationError: VerificationError,
    tuf.RepositoryError: VerificationError,
    signing.VerificationError: BadSignatureError,
    signing.UnverifiedSignatureError: BadSignatureError,
    signing.KeyMismatchError: BadSignatureError,
    signing.FormatError: BadSignatureError,
    signing.UnsupportedAlgorithmError: BadSignatureError,
    signing.UnsupportedLibraryError: BadSignatureError,
    signing.StorageError: VerificationError,
    signing.Error: VerificationError,
}


def ours(exc: Exception) -> VerificationError:
    """Return the error of ours that stands for `exc`; it is not raised."""
    for foreign, mine in OUR_ERROR_BY_FOREIGN.items():
        if isinstance(exc, foreign):
            return mine(f"release refused: {str(exc)[:300] or type(exc).__name__}")
    return VerificationError(f"release refused: {type(exc).__name__}")


@contextmanager
def translated() -> Iterator[None]:
    """Turn every error of TUF and securesystemslib inside into one of ours.

    Raises:
        VerificationError: or a subclass, with the foreign error as its cause.
    """
    try:
        yield
    except tuple(OUR_ERROR_BY_FOREIGN) as exc:
        raise ours(exc) from exc
