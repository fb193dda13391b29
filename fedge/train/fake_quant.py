"""Training towards the numbers that will be shipped: weights rounded in every step.

Each step computes loss and gradient at the rounded weights and applies the gradient to
the unrounded ones (straight-through estimator), so small gradients add up until a
weight moves to the next point. The grid or the codebook is laid down once, from the
global model, and is the same on every device. Activations are not rounded: their ranges
are calibrated after training.

Source: Courbariaux et al. (2015), "BinaryConnect", arXiv:1511.00363, algorithm 1; Jacob
et al. (2018), arXiv:1712.05877, section 3. Differs in: grids are not learned.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from fedge.compress.cluster import NUM_ENTRIES, codebook_of
from fedge.compress.grid import (
    INT4_LIMIT,
    INT8_LIMIT,
    best_scales,
    is_large,
    widest_scales,
)
from fedge.config.compression import TRAINABLE, Quantization

Round = Callable[[Tensor], Tensor]


class WeightRounding:
    """Rounds a network's weights in place, for as long as a gradient is computed.

    Args:
        values: trainable values by array, in their logical shape; rounded where they
            lie. Where the grids are laid depends on what they are now.
        axes: of each value, where output channels are (`output_axes`); 0 if left out.
        form: int8, int4 or codebook.

    Raises:
        ValueError: another form, or a value is not finite.
    """

    def __init__(
        self,
        values: Sequence[Tensor],
        form: Quantization,
        axes: Sequence[int] | None = None,
    ) -> None:
        if form not in TRAINABLE:
            raise ValueError(f"form: {form} is none of {', '.join(TRAINABLE)}")
        self._rounded = [
            (value, _rounding(value, form, axis))
            for value, axis in zip(values, axes or [0] * len(values), strict=True)
            if is_large(tuple(value.shape))
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the values be rounded inside the block, and be as before after it."""
        with torch.no_grad():
            kept = [value.clone() for value, _ in self._rounded]
            for value, rounding in self._rounded:
                value.copy_(rounding(value))
        try:
            yield
        finally:
            with torch.no_grad():
                for (value, _), old in zip(self._rounded, kept, strict=True):
                    value.copy_(old)


def output_axes(module: nn.Module) -> list[int]:
    """Return the axis of output channels of each trainable parameter, in their order.

    0 but for transposed convolutions, and for what belongs to no layer of torch's.
    """
    turned = {
        part.weight
        for part in module.modules()
        if isinstance(part, nn.ConvTranspose1d | nn.ConvTranspose2d)
    }
    return [int(p in turned) for p in module.parameters() if p.requires_grad]


def _rounding(value: Tensor, form: Quantization, axis: int) -> Round:
    turned = value.detach().movedim(axis, 0)
    rows = turned.reshape(len(turned), -1).cpu().numpy()
    if form is Quantization.codebook:
        entries = torch.from_numpy(codebook_of(rows, NUM_ENTRIES)[0]).to(value.device)
        return partial(_to_entries, entries=entries)
    if form is Quantization.int4:
        limit, scales = INT4_LIMIT, best_scales(rows, INT4_LIMIT)
    else:
        limit, scales = INT8_LIMIT, widest_scales(rows, INT8_LIMIT)
    shape = [len(turned), *[1] * (value.ndim - 1)]
    placed = torch.from_numpy(scales).reshape(shape).movedim(0, axis).to(value.device)
    return partial(_to_grid, scales=placed, limit=limit)


def _to_grid(value: Tensor, *, scales: Tensor, limit: int) -> Tensor:
    return (value / scales).round_().clamp_(-limit, limit).mul_(scales)


def _to_entries(value: Tensor, *, entries: Tensor) -> Tensor:
    middles = (entries[1:] + entries[:-1]) / 2
    # A pruned weight is 0 and stays 0, also where an entry lies very near.
    nearest = entries[torch.bucketize(value.contiguous(), middles)]
    return nearest.masked_fill_(value == 0.0, 0.0)
