"""Arrays everybody speaks of: typed aliases, and a model as one flat vector.

To everything but the trainer and the compressor a model is one float32 vector and a
`ModelSpec` that says which coordinates belong to which named array. Trainable arrays
come first and buffers (running statistics of normalization layers) last, so that a
strategy can be given the trainable part alone: an adaptive optimizer must never push a
running variance below zero.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
AnyArray = NDArray[Any]


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One named array of a model.

    Attributes:
        name: the array's name in the model's state dict.
        shape: its shape.
        trainable: False for buffers, which are averaged and never optimized.
        prunable: True for weights that a pruning mask may zero.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool = True
    prunable: bool = False

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Names and shapes of a model's arrays, in the order of the flat vector.

    Guarantee: `unflatten(flatten(arrays))` gives the same float32 arrays back.

    Attributes:
        arrays: trainable arrays first, then buffers.
    """

    arrays: tuple[ArraySpec, ...]

    def __post_init__(self) -> None:
        flags = [spec.trainable for spec in self.arrays]
        if flags != sorted(flags, reverse=True):
            raise ValueError("trainable arrays must come before buffers")
        names = [spec.name for spec in self.arrays]
        if len(set(names)) != len(names):
            raise ValueError(f"array names must be unique, got {names}")

    @property
    def size(self) -> int:
        """Number of coordinates of the flat vector."""
        return sum(spec.size for spec in self.arrays)

    @property
    def num_trainable(self) -> int:
        """Number of trainable coordinates; they are the first ones."""
        return sum(spec.size for spec in self.arrays if spec.trainable)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over names, shapes and order: equal specs, equal digest."""
        plain = [
            [spec.name, list(spec.shape), spec.trainable, spec.prunable]
            for spec in self.arrays
        ]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    def slices(self) -> Mapping[str, slice]:
        """Return where each array lies in the flat vector."""
        result, start = {}, 0
        for spec in self.arrays:
            result[spec.name] = slice(start, start + spec.size)
            start += spec.size
        return result

    def flatten(self, arrays: Mapping[str, AnyArray]) -> Float32:
        """Return the arrays as one new float32 vector, shape (size,).

        Raises:
            ValueError: an array is missing or has another shape.
        """
        vector = np.empty(self.size, np.float32)
        for spec, place in zip(self.arrays, self.slices().values(), strict=True):
            if spec.name not in arrays:
                raise ValueError(f"array {spec.name!r} is missing")
            array = arrays[spec.name]
            if array.shape != spec.shape:
                raise ValueError(
                    f"array {spec.name!r}: shape {array.shape}, need {spec.shape}"
                )
            vector[place] = array.reshape(-1)
        return vector

    def unflatten(self, vector: Float32) -> dict[str, Float32]:
        """Return views of `vector` by name; raise ValueError on a wrong size."""
        if vector.shape != (self.size,):
            raise ValueError(f"need shape ({self.size},), got {vector.shape}")
        return {
            spec.name: vector[place].reshape(spec.shape)
            for spec, place in zip(self.arrays, self.slices().values(), strict=True)
        }


def check_finite(vector: AnyArray, name: str) -> None:
    """Raise ValueError if `vector` holds a NaN or an infinity.

    The count is reported, never a value: updates do not belong in messages.
    """
    # One pass and no array of flags: nothing that is not finite adds up to a number.
    # A sum that overflows says nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(vector.sum()):
            return
    bad = int(vector.size - np.count_nonzero(np.isfinite(vector)))
    if bad:
        raise ValueError(f"{name}: {bad} of {vector.size} values are not finite")


def trainable_first(specs: Sequence[ArraySpec]) -> ModelSpec:
    """Return the spec of these arrays with buffers moved to the end."""
    return ModelSpec(tuple(sorted(specs, key=lambda spec: not spec.trainable)))
