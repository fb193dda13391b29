"""Handwritten digits, 8 x 8 pixels: small enough to travel with a dependency.

Source: UCI "Optical Recognition of Handwritten Digits" (test part), as embedded in
scikit-learn; no file is read and nothing is downloaded.
"""

from pathlib import Path

import numpy as np

from fedge.config import DataKind, Task
from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
from fedge.data.split import stratified_split
from fedge.data.standardize import standardization


def load_digits(root: Path | None = None) -> FederatedData:
    """Return 1,438 training and 359 test digits, uint8 0..16, shape (n, 1, 8, 8).

    Args:
        root: not used; every built-in loader has this signature.
    """
    from sklearn import datasets

    raw = datasets.load_digits()
    features = raw.images.astype(np.uint8)[:, np.newaxis]
    targets = raw.target.astype(np.int64)
    train, test = stratified_split(targets, test_share=0.2, seed=0)
    info = DataInfo(
        name="digits",
        kind=DataKind.image,
        task=Task.classification,
        input_shape=(1, 8, 8),
        num_outputs=10,
        output_names=tuple("0123456789"),
        normalization=standardization(features[train]),
    )
    examples = Examples(features, targets)
    return FederatedData(info, examples.take(train), examples.take(test), NOBODY)
