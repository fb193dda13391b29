import pytest
from tuf.api.exceptions import DownloadHTTPError

from fedge.errors import VerificationError
from fedge.release.bundle import (
    BASE_URL,
    MAX_METADATA_BYTES,
    MAX_METADATA_FILES,
    MAX_TARGETS,
    BundleFetcher,
    ReleaseBundle,
)


def test_usual_names_are_fine() -> None:
    names = ("timestamp.json", "12.snapshot.json", "3.targets.json", "2.root.json")
    bundle = ReleaseBundle(dict.fromkeys(names, b"1234"), {"model.onnx.zst": b"12"})
    assert bundle.num_bytes == 18


@pytest.mark.parametrize(
    "name",
    [
        "../timestamp.json",
        "/timestamp.json",
        "a/../2.root.json",
        "2.root.json/..",
        "2.root.json\n",
        "02.root.json",
        "0.root.json",
        "snapshot.json",
        "2.timestamp.json",
        "2.models.json",
        "2.root.json.tmp",
        "",
    ],
)
def test_other_metadata_names_are_refused(name: str) -> None:
    with pytest.raises(VerificationError, match="metadata name"):
        ReleaseBundle({name: b""}, {})


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "/x", "a/b", "a\\b", ".x", "-x", "x\0", "x\n", "", "x" * 101, "ü"],
)
def test_other_target_paths_are_refused(path: str) -> None:
    with pytest.raises(VerificationError, match="target path"):
        ReleaseBundle({}, {path: b""})


def test_too_many_files_are_refused() -> None:
    roots = {f"{n + 1}.root.json": b"" for n in range(MAX_METADATA_FILES + 1)}
    with pytest.raises(VerificationError, match="65 metadata files, at most 64"):
        ReleaseBundle(roots, {})
    targets = {f"x{n}": b"" for n in range(MAX_TARGETS + 1)}
    with pytest.raises(VerificationError, match="9 target files, at most 8"):
        ReleaseBundle({}, targets)


def test_too_large_metadata_is_refused() -> None:
    with pytest.raises(VerificationError, match="5000001 bytes"):
        ReleaseBundle({"timestamp.json": bytes(MAX_METADATA_BYTES + 1)}, {})


def test_a_bundle_that_is_too_large_in_all_is_refused() -> None:
    half = bytes(200_000_000)
    with pytest.raises(VerificationError, match="400000000 bytes, at most"):
        ReleaseBundle({}, {"one": half, "two": half})


def test_only_bytes_are_files() -> None:
    with pytest.raises(VerificationError, match="text to bytes"):
        ReleaseBundle({"timestamp.json": "text"}, {})  # type: ignore[dict-item]  # the point


def test_the_fetcher_reads_the_bundle_and_nothing_else() -> None:
    fetcher = BundleFetcher(ReleaseBundle({"timestamp.json": b"data"}, {"model": b"x"}))
    assert fetcher.download_bytes(f"{BASE_URL}timestamp.json", 100) == b"data"
    with pytest.raises(DownloadHTTPError, match="not in the bundle"):
        fetcher.download_bytes(f"{BASE_URL}model", 100)
    with pytest.raises(DownloadHTTPError, match="not in the bundle"):
        fetcher.download_bytes("file:///etc/passwd", 100)
