import gzip
import hashlib
from pathlib import Path

import pytest

from fedge.data.files import need_root, read_checked, read_gzip_checked
from fedge.errors import DataError

CONTENT = b"all the bytes there are"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = "the city library"


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "data.bin"
    path.write_bytes(content)
    return path


def _read(path: Path, max_bytes: int = 100) -> bytes:
    return read_checked(path, sha256=SHA256, max_bytes=max_bytes, how_to_get=SOURCE)


def _read_gzip(path: Path, num_bytes: int = len(CONTENT)) -> bytes:
    return read_gzip_checked(
        path, sha256=SHA256, num_bytes=num_bytes, how_to_get=SOURCE
    )


def test_the_expected_file_is_returned_whole(tmp_path: Path) -> None:
    assert _read(_file(tmp_path, CONTENT)) == CONTENT


def test_a_missing_file_is_named_with_its_checksum_and_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"nowhere.*{SHA256}.*{SOURCE}"):
        _read(tmp_path / "nowhere")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        _read(tmp_path)


@pytest.mark.parametrize(
    "content", [CONTENT[:-1], b"", b"A" + CONTENT[1:], CONTENT + b"."]
)
def test_a_truncated_or_altered_file_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"expected {SHA256}.*{SOURCE}"):
        _read(_file(tmp_path, content))


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="more than 10 bytes"):
        _read(_file(tmp_path, CONTENT), max_bytes=10)


def test_gzip_in_any_compressed_form_gives_the_same_content(tmp_path: Path) -> None:
    fast, small = gzip.compress(CONTENT, 1), gzip.compress(CONTENT, 9)
    assert _read_gzip(_file(tmp_path, fast)) == CONTENT
    assert _read_gzip(_file(tmp_path, small)) == CONTENT


def test_a_gzip_bomb_is_refused_after_the_expected_size(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    with pytest.raises(DataError, match=f"over {len(CONTENT)} bytes"):
        _read_gzip(_file(tmp_path, bomb))


def test_too_little_content_in_a_gzip_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 22 bytes, expected 23"):
        _read_gzip(_file(tmp_path, gzip.compress(CONTENT[:-1])))


def test_other_content_of_the_same_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"expected {SHA256}"):
        _read_gzip(_file(tmp_path, gzip.compress(CONTENT[::-1])))


@pytest.mark.parametrize(
    "content",
    [
        b"not gzip at all",
        gzip.compress(CONTENT)[:-9],
        gzip.compress(CONTENT)[:10] + b"\xff\xff\xff" + gzip.compress(CONTENT)[13:],
    ],
)
def test_a_damaged_gzip_file_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        _read_gzip(_file(tmp_path, content))


def test_a_missing_gzip_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        _read_gzip(tmp_path / "nowhere")


def test_without_a_folder_the_message_lists_what_belongs_there(tmp_path: Path) -> None:
    files = {"set/one.bin": SHA256}
    message = rf"data\.root=.*FEDGE_DATA_ROOT[\s\S]*set/one.bin.*{SHA256}[\s\S]*city"
    with pytest.raises(DataError, match=message):
        need_root(None, name="set", sha256_by_file=files, how_to_get=SOURCE)
    with pytest.raises(DataError, match="nowhere is not a folder"):
        need_root(
            tmp_path / "nowhere", name="set", sha256_by_file=files, how_to_get=SOURCE
        )
