"""Heart disease, yes or no, from thirteen clinical columns of four hospitals.

The hospitals differ strongly: in who is ill (36 % to 93 %), in what was measured, and
Switzerland wrote 0 for every unknown cholesterol. What is missing is filled with the
training mean, which normalization turns into 0, and a column of its own says so.

Source: Janosi, Steinbrunn, Pfisterer, Detrano (UCI record 45, 1988).
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fedge.arrays import Float32, Int64
from fedge.config import DataKind, Task
from fedge.data.dataset import DataInfo, Examples, FederatedData
from fedge.data.files import need_root, read_checked
from fedge.data.split import stratified_split
from fedge.data.standardize import standardization
from fedge.errors import DataError
from fedge.runtime.preprocess import Normalization

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
SHA256_BY_FILE = {
    "heart-disease/processed.cleveland.data": (
        "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8"
    ),
    "heart-disease/processed.hungarian.data": (
        "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796"
    ),
    "heart-disease/processed.switzerland.data": (
        "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314"
    ),
    "heart-disease/processed.va.data": (
        "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f"
    ),
}
MAX_BYTES = 64 * 2**10  # the largest file has 18,461
HOW_TO_GET = "UCI record 45, Heart Disease: the four processed.*.data files"
COLUMNS = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
)
NUM_ALWAYS_KNOWN = 3  # age, sex, cp; all others are missing somewhere
NEVER_ZERO = tuple(COLUMNS.index(name) for name in ("trestbps", "chol"))
CLASSES = ("healthy", "disease")
TEST_SHARE = 0.2


def load_heart_disease(root: Path | None = None) -> FederatedData:
    """Return 920 patients of four owners, float32 (n, 23): values, then indicators.

    Raises:
        DataError: `root` is None, or a file is missing or not the expected one.
    """
    folder = need_root(
        root,
        name="heart_disease",
        sha256_by_file=SHA256_BY_FILE,
        how_to_get=HOW_TO_GET,
    )
    contents = [
        read_checked(
            folder / file, sha256=sha256, max_bytes=MAX_BYTES, how_to_get=HOW_TO_GET
        )
        for file, sha256 in SHA256_BY_FILE.items()
    ]
    texts = [content.decode("ascii") for content in contents]
    return heart_from_texts(dict(zip(HOSPITALS, texts, strict=True)))


def heart_from_texts(text_by_hospital: Mapping[str, str]) -> FederatedData:
    """Return the patients of these hospitals; a fifth of each hospital is held out.

    Guarantee: after normalization a missing value is exactly 0 and its indicator 1;
    the test part depends on nothing but the files.

    Args:
        text_by_hospital: lines of 14 numbers separated by commas, "?" for missing.

    Raises:
        DataError: a line has another number of columns, or something else in it.
    """
    tables = [
        parse_patients(text, hospital) for hospital, text in text_by_hospital.items()
    ]
    patients = np.concatenate(tables)
    owners = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    targets: Int64 = (patients[:, -1] > 0).astype(np.int64)
    # Stratified by hospital and class at once.
    train, test = stratified_split(owners * 2 + targets, test_share=TEST_SHARE, seed=0)
    features, normalization = impute(patients[:, :-1], train)
    info = DataInfo(
        name="heart_disease",
        kind=DataKind.table,
        task=Task.classification,
        input_shape=(features.shape[1],),
        num_outputs=len(CLASSES),
        output_names=CLASSES,
        normalization=normalization,
    )
    examples = Examples(features, targets)
    return FederatedData(
        info,
        examples.take(train),
        examples.take(test),
        owners[train].astype(np.int64),
        tuple(text_by_hospital),
    )


def parse_patients(text: str, hospital: str) -> Float32:
    """Return float32 (n, 14): the columns and the grade; NaN is missing.

    Raises:
        DataError: a line has another number of columns, something else than a number
            or "?", or no grade; the line's number is named, not its content.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.split(",")
        try:
            row = [math.nan if cell == "?" else float(cell) for cell in cells]
        except ValueError:
            row = []
        if len(row) != len(COLUMNS) + 1 or math.isnan(row[-1]):
            raise DataError(
                f"heart_disease: {hospital} line {number}: expected "
                f'{len(COLUMNS)} numbers or "?" and a grade, separated by commas'
            )
        rows.append(row)
    table = np.array(rows, np.float32).reshape(-1, len(COLUMNS) + 1)
    for column in NEVER_ZERO:
        table[table[:, column] == 0, column] = np.nan
    return table


def impute(columns: Float32, train: Int64) -> tuple[Float32, Normalization]:
    """Return filled columns with indicators after them, and how to normalize both.

    A column that no training patient has is filled with 0.

    Args:
        columns: float32 (n, 13), NaN is missing.
        train: positions of the training examples, whose known values give the means.
    """
    known = [column[np.isfinite(column)] for column in columns[train].T]
    none = np.zeros(1, np.float32)
    scales = [
        standardization((values if len(values) else none)[:, np.newaxis])
        for values in known
    ]
    mean = tuple(scale.mean[0] for scale in scales)
    std = tuple(scale.std[0] for scale in scales)
    missing = np.isnan(columns)
    filled = np.where(missing, np.asarray(mean, np.float32), columns)
    indicators = missing[:, NUM_ALWAYS_KNOWN:].astype(np.float32)
    num_indicators = indicators.shape[1]
    normalization = Normalization(
        mean=(*mean, *[0.0] * num_indicators), std=(*std, *[1.0] * num_indicators)
    )
    return np.concatenate([filled, indicators], axis=1), normalization
