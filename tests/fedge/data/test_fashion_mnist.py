import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fedge.data.check import check_data
from fedge.data.fashion_mnist import load_fashion_mnist, parse_idx
from fedge.errors import DataError

IMAGES = struct.pack(">4I", 2051, 2, 1, 3) + bytes(range(6))
LABELS = struct.pack(">2I", 2049, 3) + bytes([7, 8, 9])


def test_idx_images_and_labels_are_read_in_order() -> None:
    assert parse_idx(IMAGES, (2, 1, 3)).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    assert parse_idx(LABELS, (3,)).tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        (LABELS, (2, 1, 3)),  # labels where images are expected
        (IMAGES, (2, 3, 1)),  # another shape of the same size
        (IMAGES[:10], (2, 1, 3)),  # cut off within the header
        (IMAGES[:-1], (2, 1, 3)),
        (IMAGES + b"x", (2, 1, 3)),
        (b"", (3,)),
    ],
)
def test_any_other_idx_content_is_refused(
    content: bytes, shape: tuple[int, ...]
) -> None:
    with pytest.raises(DataError, match="idx"):
        parse_idx(content, shape)


def test_without_a_folder_the_user_is_told_what_to_get() -> None:
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz[\s\S]*Zalando"):
        load_fashion_mnist(None)


def test_well_formed_files_with_other_pixels_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    images = struct.pack(">4I", 2051, 60_000, 28, 28) + bytes(60_000 * 28 * 28)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
    with pytest.raises(DataError, match=r"train-images.*sha256"):
        load_fashion_mnist(tmp_path)


@pytest.mark.local_data
def test_the_real_files_hold_the_published_numbers(data_root: Path) -> None:
    data = load_fashion_mnist(data_root)
    check_data(data)
    assert data.train.features.shape == (60_000, 1, 28, 28)
    assert np.bincount(data.train.targets).tolist() == [6_000] * 10
    assert np.bincount(data.test.targets).tolist() == [1_000] * 10
    inputs = data.info.normalization.apply(data.train.features)
    # The published mean and deviation have four digits.
    assert abs(inputs.mean(dtype=np.float64)) < 5e-4
    assert abs(inputs.std(dtype=np.float64) - 1.0) < 5e-4
