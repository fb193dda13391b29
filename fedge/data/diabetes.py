"""Diabetes progression after one year, from ten columns: the regression data set.

Source: Efron, Hastie, Johnstone, Tibshirani, "Least Angle Regression", 2004, as
embedded in scikit-learn; no file is read and nothing is downloaded.
"""

from pathlib import Path

import numpy as np

from fedge.config import DataKind, Task
from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
from fedge.data.split import stratified_split
from fedge.data.standardize import standardization


def load_diabetes(root: Path | None = None) -> FederatedData:
    """Return 354 training and 88 test patients, float32 (n, 10), in original units.

    Targets are float32, standardized with the training part's mean and deviation.

    Args:
        root: not used; every built-in loader has this signature.
    """
    from sklearn import datasets

    raw = datasets.load_diabetes(scaled=False)
    features = raw.data.astype(np.float32)
    one_class = np.zeros(len(features), np.int64)
    train, test = stratified_split(one_class, test_share=0.2, seed=0)
    scale = standardization(raw.target[train, np.newaxis])
    targets = scale.apply(raw.target[:, np.newaxis])[:, 0]
    info = DataInfo(
        name="diabetes",
        kind=DataKind.table,
        task=Task.regression,
        input_shape=(features.shape[1],),
        num_outputs=1,
        output_names=(),
        normalization=standardization(features[train]),
    )
    examples = Examples(features, targets)
    return FederatedData(info, examples.take(train), examples.take(test), NOBODY)
