"""A small array as text: what reference inputs and outputs look like inside JSON.

Only number types, only bytes of exactly the declared size, never a pickle. Large arrays
do not belong here; the cap keeps a release's signed metadata below the 5 MB that a
device downloads.
"""

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedge.arrays import AnyArray
from fedge.errors import ConfigError

Dtype = Literal[
    "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16"
]
DTYPES: tuple[Dtype, ...] = Dtype.__args__  # type: ignore[attr-defined]  # the literals

# Two of these as base64 stay below TUF's limit of 5 MB for targets metadata.
MAX_PACKED_BYTES = 1_500_000
MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class PackedArray:
    """One array, little endian, C order, as base64.

    Guarantee: `PackedArray.pack(x).unpack()` equals x, bit for bit.

    Attributes:
        dtype: name of the number type.
        shape: at most 8 axes.
        data: base64 of the bytes, at most `MAX_PACKED_BYTES` of them.

    Raises:
        ConfigError: unknown type, too large, not base64, or the number of bytes does
            not fit the shape.
    """

    dtype: Dtype
    shape: tuple[int, ...]
    data: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"packed array: dtype {self.dtype!r} not in {DTYPES}")
        if len(self.shape) > MAX_DIMENSIONS or any(side < 0 for side in self.shape):
            raise ConfigError(f"packed array: shape {self.shape} is not allowed")
        need = math.prod(self.shape) * np.dtype(self.dtype).itemsize
        if need > MAX_PACKED_BYTES:
            raise ConfigError(
                f"packed array: {need} bytes, at most {MAX_PACKED_BYTES}; "
                "use fewer examples"
            )
        if len(self.data) != 4 * math.ceil(need / 3):
            raise ConfigError(
                f"packed array: {len(self.data)} characters do not fit {self.shape}"
            )
        if len(self._bytes()) != need:
            raise ConfigError(f"packed array: wrong number of bytes for {self.shape}")

    def _bytes(self) -> bytes:
        try:
            return base64.b64decode(self.data, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise ConfigError("packed array: data is not base64") from exc

    @classmethod
    def pack(cls, array: AnyArray) -> "PackedArray":
        """Return `array` as text; raise ConfigError if it is too large or no number."""
        name = array.dtype.name
        if name not in DTYPES:
            raise ConfigError(f"packed array: dtype {name!r} not in {DTYPES}")
        if array.nbytes > MAX_PACKED_BYTES:
            raise ConfigError(
                f"packed array: {array.nbytes} bytes, at most {MAX_PACKED_BYTES}; "
                "use fewer examples"
            )
        raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
        text = base64.b64encode(raw.tobytes()).decode("ascii")
        return cls(dtype=name, shape=tuple(array.shape), data=text)

    def unpack(self) -> AnyArray:
        """Return the array, in the machine's own byte order."""
        little = np.dtype(self.dtype).newbyteorder("<")
        array: AnyArray = np.frombuffer(self._bytes(), little).reshape(self.shape)
        return array.astype(np.dtype(self.dtype))
