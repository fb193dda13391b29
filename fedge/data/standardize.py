"""Mean and deviation of training examples, as the numbers a model is shipped with."""

import numpy as np

from fedge.arrays import AnyArray
from fedge.runtime.preprocess import Normalization


def standardization(features: AnyArray) -> Normalization:
    """Return what brings every channel or column to mean 0 and deviation 1.

    The numbers are rounded to six significant digits: sums differ in their last bits
    between processors, and these numbers are signed. A channel that never changes is
    divided by 1.

    Guarantee: applied to `features`, each channel has mean 0 and deviation 1 (or 0)
    within float32 rounding and those six digits.

    Args:
        features: raw training examples, shape (n, channels, ...).
    """
    channels = [features[:, index] for index in range(features.shape[1])]
    means = [float(np.mean(channel, dtype=np.float64)) for channel in channels]
    deviations = [float(np.std(channel, dtype=np.float64)) for channel in channels]
    return Normalization(
        mean=tuple(_six_digits(mean) for mean in means),
        std=tuple(_six_digits(std) or 1.0 for std in deviations),
    )


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")
