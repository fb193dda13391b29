"""What every loader returns: raw examples, targets, owners, and how to read them."""

from dataclasses import dataclass

import numpy as np

from fedge.arrays import AnyArray, Int64
from fedge.config import DataKind, Task
from fedge.errors import DataError
from fedge.runtime.preprocess import Normalization


@dataclass(frozen=True, slots=True)
class Examples:
    """Some examples and what is to be predicted from them.

    Attributes:
        features: raw values, shape (n, *input_shape): any number dtype, or integer
            token ids for text.
        targets: int64 (n,) classes; float32 (n,) standardized numbers; int64 (n, time)
            next tokens; or float32 (n, slots, 5) objects (`fedge.runtime.boxes`).
    """

    features: AnyArray
    targets: AnyArray

    def __post_init__(self) -> None:
        if len(self.features) != len(self.targets):
            raise DataError(
                f"{len(self.features)} examples but {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Int64) -> "Examples":
        """Return the examples at `indices`, in that order."""
        return Examples(self.features[indices], self.targets[indices])

    def draw(self, count: int, rng: np.random.Generator) -> "Examples":
        """Return at most so many of them, drawn by the generator, in their order."""
        size = min(count, len(self))
        return self.take(np.sort(rng.choice(len(self), size=size, replace=False)))


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What a model must know about the data, without any of it.

    Attributes:
        name: name of the data set.
        kind: the form of one example.
        task: what is predicted.
        input_shape: shape of one example, without the batch axis.
        num_outputs: classes (of an object, too), tokens in the vocabulary, or 1 for
            regression.
        output_names: names of the classes or tokens; empty for regression.
        normalization: from raw values to model inputs.
    """

    name: str
    kind: DataKind
    task: Task
    input_shape: tuple[int, ...]
    num_outputs: int
    output_names: tuple[str, ...]
    normalization: Normalization


@dataclass(frozen=True, slots=True)
class FederatedData:
    """A data set with a held-out part and, if it has them, natural owners.

    Attributes:
        info: what models and reports need to know.
        train: examples to be spread over the clients.
        test: held-out examples; under natural owners from people or places that no
            client holds, where the data set defines such a split.
        owners: int64 (n,), whose each training example is (0 .. len(owner_names) - 1);
            empty if nobody's.
        owner_names: names of the owners.
    """

    info: DataInfo
    train: Examples
    test: Examples
    owners: Int64
    owner_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.train) == 0 or len(self.test) == 0:
            raise DataError(f"{self.info.name}: no training or no test examples")
        if self.train.features.shape[1:] != self.info.input_shape:
            raise DataError(
                f"{self.info.name}: examples have shape "
                f"{self.train.features.shape[1:]}, declared {self.info.input_shape}"
            )
        if len(self.owners) not in (0, len(self.train)):
            raise DataError(
                f"{self.info.name}: {len(self.owners)} owners for "
                f"{len(self.train)} examples"
            )


NOBODY: Int64 = np.zeros(0, np.int64)
