import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedge.arrays import AnyArray
from fedge.errors import PeerError, VerificationError
from fedge.flower.records import array_of
from fedge.flower.release_records import bundle_of, content_of
from fedge.release.bundle import ReleaseBundle

BUNDLE = ReleaseBundle(
    metadata={"1.root.json": b"{}", "timestamp.json": b"[]"},
    targets={"model.bin": bytes(range(256)), "empty": b""},
)


def content(**files: AnyArray) -> RecordDict:
    record = ArrayRecord({name: array_of(data) for name, data in files.items()})
    return RecordDict({"release-metadata": record, "release-targets": ArrayRecord()})


def test_a_bundle_comes_back_as_it_was() -> None:
    assert bundle_of(content_of(BUNDLE)) == BUNDLE


@pytest.mark.parametrize("key", ["release-metadata", "release-targets"])
def test_a_missing_record_is_refused(key: str) -> None:
    message = content_of(BUNDLE)
    del message[key]
    with pytest.raises(PeerError, match=f"array record '{key}' is missing"):
        bundle_of(message)
    message[key] = ConfigRecord()
    with pytest.raises(PeerError, match=f"array record '{key}' is missing"):
        bundle_of(message)


@pytest.mark.parametrize(
    "data", [np.zeros(3, np.float32), np.zeros((2, 2), np.uint8), np.array(1, np.uint8)]
)
def test_a_file_must_be_bytes(data: AnyArray) -> None:
    with pytest.raises(PeerError, match=r"file 'x': .* need bytes"):
        bundle_of(content(x=data))


def test_a_name_that_leaves_the_folder_is_refused() -> None:
    with pytest.raises(VerificationError):
        bundle_of(content(**{"../../etc/passwd": np.zeros(3, np.uint8)}))
