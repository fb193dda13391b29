"""Human activity from a phone's motion sensors: thirty people, six activities.

Windows of 128 samples (2.56 s at 50 Hz, half overlapping) of nine channels: body
acceleration, rotation and total acceleration along x, y, z. Values are int16 in steps
of 2**-12 g or rad/s. The published split is by person, so no window of a test person
overlaps one of a client; nine people are the test part, the other 21 own the rest.

Source: Anguita, Ghio, Oneto, Parra, Reyes-Ortiz, ESANN 2013 (UCI record 240).
"""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from fedge.arrays import AnyArray, Int64
from fedge.config import DataKind, Task
from fedge.data.dataset import DataInfo, Examples, FederatedData
from fedge.data.files import need_root, read_checked
from fedge.data.standardize import standardization
from fedge.errors import DataError

FILE = "uci-har/har_windows.npz"
SHA256 = "2519b81e0ec754d344631aebb179d58a1ef98da0e230d68ba0cdd3c7e1c212db"
MAX_BYTES = 16 * 2**20  # the file has 10,134,374
HOW_TO_GET = (
    "UCI record 240, Human Activity Recognition Using Smartphones, its inertial "
    "signals stored as int16 in steps of 2**-12 (arrays X, y, subject, official_test)"
)
CLASSES = (
    "WALKING",
    "WALKING_UPSTAIRS",
    "WALKING_DOWNSTAIRS",
    "SITTING",
    "STANDING",
    "LAYING",
)
DTYPE_BY_ARRAY = {"X": "int16", "y": "uint8", "subject": "uint8", "official_test": "b1"}
WINDOW_SHAPE = (9, 128)
# What numpy and zipfile raise for a cut-off, foreign or pickled file.
UNREADABLE = (
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_uci_har(root: Path | None = None) -> FederatedData:
    """Return 7,352 windows of 21 owners and 2,947 of nine others, int16 (n, 9, 128).

    Raises:
        DataError: `root` is None, or the file is missing or not the expected one.
    """
    folder = need_root(
        root, name="uci_har", sha256_by_file={FILE: SHA256}, how_to_get=HOW_TO_GET
    )
    return har_from_npz(
        read_checked(
            folder / FILE, sha256=SHA256, max_bytes=MAX_BYTES, how_to_get=HOW_TO_GET
        )
    )


def har_from_npz(content: bytes) -> FederatedData:
    """Return the data in an npz file with the arrays of `DTYPE_BY_ARRAY`.

    Guarantee: nothing in the file is ever executed (no pickled objects).

    Raises:
        DataError: not an npz file, or arrays are missing, pickled, of another dtype or
            shape.
    """
    arrays = _read_arrays(content)
    subject, is_test = arrays["subject"], arrays["official_test"]
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    people, owners = np.unique(subject[train], return_inverse=True)
    examples = Examples(arrays["X"], arrays["y"].astype(np.int64))
    train_examples = examples.take(train)
    info = DataInfo(
        name="uci_har",
        kind=DataKind.signal,
        task=Task.classification,
        input_shape=WINDOW_SHAPE,
        num_outputs=len(CLASSES),
        output_names=CLASSES,
        normalization=standardization(train_examples.features),
    )
    names = tuple(f"person {number}" for number in people.tolist())
    owner_indices: Int64 = owners.astype(np.int64)
    return FederatedData(
        info, train_examples, examples.take(test), owner_indices, names
    )


def _read_arrays(content: bytes) -> dict[str, AnyArray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in DTYPE_BY_ARRAY}
    except UNREADABLE as exc:
        raise DataError(f"uci_har: not the expected npz file: {exc}") from exc
    count = len(arrays["X"]) if arrays["X"].ndim else 0
    for name, array in arrays.items():
        shape = (count, *WINDOW_SHAPE) if name == "X" else (count,)
        if array.dtype != DTYPE_BY_ARRAY[name] or array.shape != shape:
            raise DataError(
                f"uci_har: array {name} is {array.dtype} {array.shape}, expected "
                f"{np.dtype(DTYPE_BY_ARRAY[name])} {shape}"
            )
    return arrays
