"""The next int8 model on the scales of the last one, so that little changes.

A model that is quantized anew gets new scales, and every byte of it differs. Here the
last release's file is taken as it is, activation ranges and all, and only its weights'
codes are set anew; codes that would move by less than a dead zone stay. What stays
behind is not lost: codes are always computed from the float32 model, so a weight that
drifts moves as soon as it has drifted far enough.

Source: the idea of a residual that stays with the sender, Seide et al. (2014), "1-bit
SGD"; here the float32 model is the residual's memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from fedge.arrays import AnyArray, Float32
from fedge.compress.grid import INT8_LIMIT
from fedge.compress.quantize import prepared
from fedge.errors import CompressionError
from fedge.export.strip import strip

_CODES = "_quantized"


def requantize(
    base: bytes, fp32_model: bytes, *, dead_zone: int = 0, headroom: float = 0.0
) -> bytes:
    """Return the float32 model on the scales of `base`.

    Guarantee: deterministic; the result is as long as `base`; with a dead zone of 0
    every weight is the one on the grid that is nearest to the float32 weight (or the
    grid's end, if it lies outside).

    Args:
        base: from `quantize_int8`, or from here.
        fp32_model: float32 ONNX file of the same architecture.
        dead_zone: int8 codes that would move by at most so many steps stay, 0 to 127.
        headroom: make the grid larger by this share first, >= 0: for the first of a row
            of releases, whose weights will grow.

    Raises:
        ValueError: a number is out of range.
        CompressionError: the architectures differ, or nothing in the base is quantized.
    """
    if not 0 <= dead_zone <= 127:
        raise ValueError(f"dead_zone: {dead_zone} not in [0, 127]")
    if not 0.0 <= headroom < np.inf:
        raise ValueError(f"headroom: {headroom} must be at least 0")
    parsed = onnx.load_model_from_string(base)
    new = {
        array.name: numpy_helper.to_array(array)
        for array in onnx.load_model_from_string(prepared(fp32_model)).graph.initializer
    }
    grids = list(_grids(parsed.graph))
    if not grids:
        raise CompressionError("requantize: the base has no quantized weights")
    for grid in grids:
        values = new.get(grid.stem)
        if values is None or values.shape != tuple(grid.codes.dims):
            raise CompressionError(
                f"requantize: the base's weight {grid.stem!r} is not one of the new "
                f"model's in the same shape; publish a full release"
            )
        grid.set(values, dead_zone=dead_zone, headroom=headroom)
    return strip(parsed.SerializeToString(deterministic=True))


@dataclass(frozen=True, slots=True)
class _Grid:
    """One quantized array of a model.

    Attributes:
        stem: its name in the float32 model.
        codes, scale: its initializers; what is set is set in there.
        axis: which axis of the codes the scales belong to.
    """

    stem: str
    codes: onnx.TensorProto
    scale: onnx.TensorProto
    axis: int

    def set(self, values: Float32, *, dead_zone: int, headroom: float) -> None:
        scale = numpy_helper.to_array(self.scale)
        scale = (scale * np.float32(1.0 + headroom)).astype(np.float32)
        codes = numpy_helper.to_array(self.codes)
        moved = _codes(values, codes, self._fitting(scale), dead_zone)
        self.codes.CopyFrom(numpy_helper.from_array(moved, self.codes.name))
        self.scale.CopyFrom(numpy_helper.from_array(scale, self.scale.name))

    def _fitting(self, scale: Float32) -> Float32:
        """Return the scales so that they can be broadcast over the codes."""
        if scale.ndim == 0:
            return scale
        shape = [1] * len(self.codes.dims)
        shape[self.axis] = scale.size
        return scale.reshape(shape)


def _grids(graph: onnx.GraphProto) -> Iterator[_Grid]:
    arrays = {array.name: array for array in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays:
            codes, scale = (arrays[name] for name in node.input[:2])
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            yield _Grid(codes.name.removesuffix(_CODES), codes, scale, axis)


def _codes(
    values: Float32, codes: AnyArray, scale: Float32, dead_zone: int
) -> AnyArray:
    """Return the codes of the values; those stay that would move by little."""
    is_weight = codes.dtype == np.int8  # else a bias, in steps that are much finer
    limit = INT8_LIMIT if is_weight else np.iinfo(codes.dtype).max
    wanted = np.clip(np.rint(values.astype(np.float64) / scale), -limit, limit)
    moves = np.abs(wanted - codes) > (dead_zone if is_weight else 0)
    return np.where(moves, wanted, codes).astype(codes.dtype)
