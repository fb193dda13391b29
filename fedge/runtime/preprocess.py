"""What stands between a sensor's raw values and a model: pure numpy, sent as data.

The same few numbers are used while training and, signed in the release, on the device,
so the two cannot drift apart.
"""

from dataclasses import dataclass

import numpy as np

from fedge.arrays import AnyArray


@dataclass(frozen=True, slots=True)
class Normalization:
    """(raw - mean) / std; an empty `mean` leaves integer tokens as they are.

    Attributes:
        mean: one number for all, or one per entry of the first axis of an example
            (image or signal channel, table column).
        std: like `mean`, all > 0.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means but {len(self.std)} deviations")
        if not all(np.isfinite(self.mean)) or not all(
            np.isfinite(value) and value > 0 for value in self.std
        ):
            raise ValueError("means must be finite and deviations finite and > 0")

    def apply(self, raw: AnyArray) -> AnyArray:
        """Return float32 model inputs, or the tokens as int64 if there is no mean.

        Args:
            raw: examples, shape (n, ...).

        Raises:
            ValueError: the examples' first axis does not fit the number of means.
        """
        if not self.mean:
            return raw.astype(np.int64)
        mean, std = (np.asarray(v, np.float32) for v in (self.mean, self.std))
        if mean.size > 1:
            if raw.ndim < 2 or raw.shape[1] != mean.size:
                raise ValueError(f"shape {raw.shape} does not fit {mean.size} channels")
            mean, std = (v.reshape(-1, *[1] * (raw.ndim - 2)) for v in (mean, std))
        result: AnyArray = raw.astype(np.float32)
        result -= mean
        result /= std
        return result
