"""Fashion-MNIST: 70,000 grey images of clothes in ten classes, 28 x 28 pixels.

Reads the four gzipped idx files. Checked are the decompressed bytes: the archives'
own checksums differ between equally good copies.

Source: Xiao, Rasul, Vollgraf, arXiv:1708.07747 (MIT licence).
"""

import math
from pathlib import Path

import numpy as np

from fedge.arrays import UInt8
from fedge.config import DataKind, Task
from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
from fedge.data.files import need_root, read_gzip_checked
from fedge.errors import DataError
from fedge.runtime.preprocess import Normalization

FOLDER = "fashion-mnist"
SHA256_BY_FILE = {
    f"{FOLDER}/train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    f"{FOLDER}/train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    f"{FOLDER}/t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    f"{FOLDER}/t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
HOW_TO_GET = (
    "Zalando Research's fashion-mnist repository, folder data/fashion; the checksums "
    "are those of the decompressed bytes"
)
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Third byte of the magic number 0x08: unsigned bytes; fourth: number of dimensions.
UNSIGNED_BYTES = 0x0800


def load_fashion_mnist(root: Path | None = None) -> FederatedData:
    """Return 60,000 training and 10,000 test images, uint8 (n, 1, 28, 28).

    Raises:
        DataError: `root` is None, or a file is missing or not the expected one.
    """
    folder = need_root(
        root,
        name="fashion_mnist",
        sha256_by_file=SHA256_BY_FILE,
        how_to_get=HOW_TO_GET,
    )
    info = DataInfo(
        name="fashion_mnist",
        kind=DataKind.image,
        task=Task.classification,
        input_shape=(1, 28, 28),
        num_outputs=len(CLASSES),
        output_names=CLASSES,
        # Mean and deviation of the training pixels divided by 255, as published.
        normalization=Normalization(mean=(0.2860 * 255,), std=(0.3530 * 255,)),
    )
    train = _examples(folder, part="train", count=60_000)
    test = _examples(folder, part="t10k", count=10_000)
    return FederatedData(info, train, test, NOBODY)


def parse_idx(content: bytes, shape: tuple[int, ...]) -> UInt8:
    """Return the array in an idx file of unsigned bytes.

    Args:
        content: the whole file: big-endian uint32 magic number, one uint32 for each
            dimension, then the values.
        shape: what the header must declare.

    Raises:
        DataError: another magic number, another shape, or missing or surplus bytes.
    """
    header = np.array([UNSIGNED_BYTES + len(shape), *shape], ">u4").tobytes()
    if not content.startswith(header):
        raise DataError(
            f"idx: header {content[: len(header)].hex()}, expected {header.hex()} for "
            f"unsigned bytes of shape {shape}"
        )
    num_values = len(content) - len(header)
    if num_values != math.prod(shape):
        raise DataError(f"idx: {num_values} values, expected {math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _examples(folder: Path, *, part: str, count: int) -> Examples:
    images = _read(folder, f"{FOLDER}/{part}-images-idx3-ubyte.gz", (count, 28, 28))
    labels = _read(folder, f"{FOLDER}/{part}-labels-idx1-ubyte.gz", (count,))
    return Examples(images[:, np.newaxis], labels.astype(np.int64))


def _read(folder: Path, file: str, shape: tuple[int, ...]) -> UInt8:
    content = read_gzip_checked(
        folder / file,
        sha256=SHA256_BY_FILE[file],
        num_bytes=4 * (1 + len(shape)) + math.prod(shape),
        how_to_get=HOW_TO_GET,
    )
    return parse_idx(content, shape)
