"""Training steps of dense classifiers, written out.

For a chain of linear layers and ReLUs the backward pass is three lines a layer. Written
out, small ones are spared autograd's bookkeeping, and plain SGD can subtract a layer's
gradient from its weights in the product that makes it, so that the gradient of a large
layer is never written to memory.

Works on one network, whose values have the parameters' shapes, and on a stack of K
networks, whose values have one axis more in front; then so has everything else.

Symbols: h is what enters a layer, W and c its weight and bias, a = h W' + c. Source:
backpropagation, Rumelhart et al. (1986).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedge.config import OptimizerName, Task, TrainConfig

Values = Mapping[str, Tensor]

# Values of a matrix that does not fit in a core's cache, and of a part that does.
_LARGE_MATRIX, _CACHED_VALUES = 1 << 20, 100_000
_FEW_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class DenseChain:
    """A network that is linear-ReLU-...-linear; `dense_chain` recognizes one.

    Attributes:
        layers: names of its linear layers, in order.
    """

    layers: tuple[str, ...]

    def gradients(
        self, values: Values, inputs: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the gradients by parameter, and the losses.

        Guarantee: equal to autograd's within float tolerance.

        Args:
            values: by parameter, float32.
            inputs: float32 ([K,] b, ...).
            targets: int64 ([K,] b).
            weights: of the examples in the loss, float32 ([K,] b).
        """
        entered, slope, losses = self._forward(values, inputs, targets, weights)
        grads: dict[str, Tensor] = {}
        for name, h in zip(reversed(self.layers), reversed(entered), strict=True):
            grads[f"{name}.weight"] = slope.mT @ h
            grads[f"{name}.bias"] = slope.sum(-2)
            if name != self.layers[0]:
                slope = slope @ values[f"{name}.weight"]
                slope = slope.masked_fill_(h == 0.0, 0.0)  # the ReLU that gave h
        return grads, losses

    def descend(
        self,
        values: Values,
        inputs: Tensor,
        targets: Tensor,
        weights: Tensor,
        *,
        learning_rate: float,
    ) -> Tensor:
        """Make one step of plain SGD, in place; return the losses before it.

        Guarantee: equal to subtracting learning_rate * `gradients` within float
        tolerance.
        """
        entered, slope, losses = self._forward(values, inputs, targets, weights)
        for name, h in zip(reversed(self.layers), reversed(entered), strict=True):
            weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
            bias.sub_(slope.sum(-2), alpha=learning_rate)
            if name == self.layers[0]:
                _descend(weight, slope, h, learning_rate)
            else:
                before = _slope_before(weight, slope, h, learning_rate)
                slope = before.masked_fill_(h == 0.0, 0.0)
        return losses

    def _forward(
        self, values: Values, inputs: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return what enters each layer, the slope at the outputs, and the losses."""
        entered = [inputs.flatten(targets.ndim)]
        for name in self.layers:
            if name != self.layers[0]:
                entered[-1].relu_()
            a = _affine(entered[-1], values[f"{name}.weight"], values[f"{name}.bias"])
            entered.append(a)
        # Not `log_softmax`: it is slow along a short axis.
        outputs, places, each = entered.pop(), targets[..., None], weights[..., None]
        norms = outputs.logsumexp(-1, keepdim=True)
        losses = ((norms - outputs.gather(-1, places)) * each).sum((-2, -1))
        # Of the weighted cross entropy: (softmax - one-hot) * weight.
        slope = outputs.sub_(norms).exp_().mul_(each)
        return entered, slope.scatter_add_(-1, places, -each), losses


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.ndim == 2:
        # Of a large matrix and a few examples MKL computes W h' in half of the time of
        # h W' (measured: from about a million weights on, for 8 to 64 examples).
        if weight.numel() >= _LARGE_MATRIX and len(h) <= _FEW_EXAMPLES:
            return (weight @ h.mT).mT.contiguous().add_(bias)
        return torch.addmm(bias, h, weight.mT)
    return torch.bmm(h, weight.mT).add_(bias[:, None])  # baddbmm copies the bias first


def _slope_before(
    weight: Tensor, slope: Tensor, h: Tensor, learning_rate: float
) -> Tensor:
    """Return the slope before a layer, and subtract the gradient from its weights.

    Of a large matrix a few rows at a time, which are read from memory only once.
    """
    if weight.ndim == 3 or weight.numel() < _LARGE_MATRIX:
        before = slope @ weight
        _descend(weight, slope, h, learning_rate)
        return before
    before = torch.zeros_like(h)
    num_rows = max(1, _CACHED_VALUES // weight.shape[1])
    for rows, part in zip(
        torch.split(weight, num_rows), torch.split(slope, num_rows, -1), strict=True
    ):
        before.addmm_(part, rows)
        _descend(rows, part, h, learning_rate)
    return before


def _descend(weight: Tensor, slope: Tensor, h: Tensor, learning_rate: float) -> None:
    """Subtract the gradient from a layer's weights, in the product that makes it."""
    if weight.ndim == 2:
        weight.addmm_(slope.mT, h, alpha=-learning_rate)
    else:
        weight.baddbmm_(slope.mT, h, alpha=-learning_rate)


def is_plain_sgd(config: TrainConfig, *, proximal_mu: float, masked: bool) -> bool:
    """Say whether a step is nothing but subtracting learning_rate * gradient."""
    plain = config.optimizer is OptimizerName.sgd and config.momentum == 0.0
    untouched = config.weight_decay == config.clip_norm == proximal_mu == 0.0
    return plain and untouched and not masked


def dense_chain(model: nn.Module, task: Task) -> DenseChain | None:
    """Return the chain that a classifier is; None if it is another network.

    Flattening comes first, and dropout may be there if it drops nothing.
    """
    if not isinstance(model, nn.Sequential) or task is not Task.classification:
        return None
    named = [
        (name, part)
        for name, part in model.named_children()
        if not isinstance(part, nn.Identity)
        and not (isinstance(part, nn.Dropout) and part.p == 0.0)
    ]
    parts = [part for _, part in named]
    pattern = [nn.ReLU if place % 2 else nn.Linear for place in range(len(parts) - 1)]
    if len(parts) % 2 or [type(part) for part in parts] != [nn.Flatten, *pattern]:
        return None
    first = parts[0]
    assert isinstance(first, nn.Flatten)
    linear = {name: part for name, part in named if isinstance(part, nn.Linear)}
    if (first.start_dim, first.end_dim) != (1, -1) or not _are_whole(linear):
        return None
    return DenseChain(tuple(linear))


def _are_whole(linear: Mapping[str, nn.Linear]) -> bool:
    """Say whether all layers have two trainable parameters of their own."""
    parameters = [p for part in linear.values() for p in (part.weight, part.bias)]
    if any(p is None or not p.requires_grad for p in parameters):
        return False
    return len({id(p) for p in parameters}) == len(parameters)
