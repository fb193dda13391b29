"""A network whose trainable parameters are views of one vector.

The global model comes as one vector and the update goes as one: here it is trained in
place, so that each is one copy and nothing is put together layer by layer. Gradients
stay with the parameters: adding them up in a vector of their own would read and write a
large model once more in every step.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedge.arrays import AnyArray


@dataclass(frozen=True, slots=True)
class Layout:
    """How each parameter lies in memory: axes from the outermost to the innermost.

    Convolutions in channels-last layout are faster on CPUs; keeping that layout inside
    the flat vector keeps the speed.

    Attributes:
        shapes: of the parameters.
        orders: axes of each as they lie in memory.
    """

    shapes: tuple[tuple[int, ...], ...]
    orders: tuple[tuple[int, ...], ...]

    @property
    def is_logical(self) -> bool:
        """Whether memory order is logical order for all parameters."""
        return all(order == tuple(range(len(order))) for order in self.orders)

    def to_memory(self, vector: AnyArray) -> AnyArray:
        """Return a copy with the values in memory order; `vector` in logical order."""
        if self.is_logical:
            return vector.copy()
        parts = self._parts(vector, self.shapes)
        moved = (
            part.transpose(order).reshape(-1)
            for part, order in zip(parts, self.orders, strict=True)
        )
        return np.concatenate([vector[:0], *moved])

    def from_memory(self, vector: AnyArray) -> AnyArray:
        """Undo `to_memory`; where both orders are one, return the vector itself."""
        if self.is_logical:
            return vector
        parts = self._parts(vector, self._stored_shapes())
        moved = (
            part.transpose(_inverse(order)).reshape(-1)
            for part, order in zip(parts, self.orders, strict=True)
        )
        return np.concatenate([vector[:0], *moved])

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return each parameter's part of a vector in memory order, without a copy."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return [
            part.view(shape).permute(_inverse(order))
            for part, shape, order in zip(
                torch.split(vector, sizes),
                self._stored_shapes(),
                self.orders,
                strict=True,
            )
        ]

    def _stored_shapes(self) -> list[tuple[int, ...]]:
        return [
            tuple(shape[axis] for axis in order)
            for shape, order in zip(self.shapes, self.orders, strict=True)
        ]

    @staticmethod
    def _parts(
        vector: AnyArray, shapes: Sequence[tuple[int, ...]]
    ) -> Iterator[AnyArray]:
        start = 0
        for shape in shapes:
            size = math.prod(shape)
            yield vector[start : start + size].reshape(shape)
            start += size


def layout_of(parameters: Sequence[nn.Parameter]) -> Layout:
    """Return how these parameters lie in memory."""
    return Layout(
        tuple(tuple(parameter.shape) for parameter in parameters),
        tuple(_order(parameter) for parameter in parameters),
    )


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _order(parameter: nn.Parameter) -> tuple[int, ...]:
    # Strides, not `is_contiguous`: with one input channel both layouts are contiguous,
    # but PyTorch picks its kernels by the strides.
    if parameter.ndim == 4:
        _, channels, height, width = parameter.shape
        last = (channels * height * width, 1, width * channels, channels)
        if parameter.stride() == last:
            return (0, 2, 3, 1)
    return tuple(range(parameter.ndim))


@contextmanager
def as_views(
    parameters: Sequence[nn.Parameter], layout: Layout, values: Tensor
) -> Iterator[None]:
    """Let the parameters be views of a vector for a while.

    Guarantee: afterwards every parameter has its own storage and no gradient again,
    also after an exception.

    Args:
        parameters: of a network, on the vector's device.
        layout: of these parameters.
        values: float32, shape (d,), in memory order.
    """
    own = [parameter.data for parameter in parameters]
    try:
        for parameter, value in zip(parameters, layout.views(values), strict=True):
            parameter.data, parameter.grad = value, None
        yield
    finally:
        for parameter, data in zip(parameters, own, strict=True):
            parameter.data, parameter.grad = data, None
