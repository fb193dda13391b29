"""Gradients of stacked dense networks, written out.

For a chain of linear layers and ReLUs the backward pass is three lines a layer, and for
small ones autograd's bookkeeping costs more than the arithmetic. Everything else goes
through `torch.func` (see `stacked`).

Symbols: K clients, b examples of each, h what enters a layer, and the layer's W and c:
a = h W' + c. Source: backpropagation, Rumelhart et al. (1986).
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.config import Task

# (values, inputs, targets, weights) to (gradients, losses): values and gradients by
# parameter, float32 (K, *shape); losses float32 (K,).
Gradients: TypeAlias = Callable[
    [Mapping[str, Tensor], Tensor, Tensor, Tensor], tuple[dict[str, Tensor], Tensor]
]


def dense_gradients(model: nn.Module, task: Task) -> Gradients | None:
    """Return the gradients of a dense classifier; None for any other network.

    Guarantee: equal to autograd's within float tolerance.

    Returns:
        A function of values; inputs, float32 (K, b, ...); targets, int64 (K, b); and
        weights of the examples in each client's loss, float32 (K, b).
    """
    layers = _linear_layers(model)
    if layers is None or task is not Task.classification:
        return None

    def gradients(
        values: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        entered = [inputs.flatten(2)]
        for place, name in enumerate(layers):
            a = torch.baddbmm(
                values[f"{name}.bias"][:, None],
                entered[-1],
                values[f"{name}.weight"].transpose(1, 2),
            )
            entered.append(a if place == len(layers) - 1 else a.relu_())
        log_shares = F.log_softmax(entered.pop(), 2)
        chosen = log_shares.gather(2, targets[..., None])
        losses = -(chosen.squeeze(2) * weights).sum(1)
        # Of the mean cross entropy: (softmax - one-hot) * weight.
        slope = log_shares.exp_()
        slope.scatter_add_(2, targets[..., None], chosen.fill_(-1.0))
        slope.mul_(weights[..., None])
        grads: dict[str, Tensor] = {}
        for name in reversed(layers):
            h = entered.pop()
            grads[f"{name}.weight"] = torch.bmm(slope.transpose(1, 2), h)
            grads[f"{name}.bias"] = slope.sum(1)
            if entered:
                slope = torch.bmm(slope, values[f"{name}.weight"])
                slope.masked_fill_(h == 0.0, 0.0)
        return grads, losses

    return gradients


def _linear_layers(model: nn.Module) -> list[str] | None:
    """Return the names of the linear layers of a chain linear-ReLU-linear...

    Flattening comes first and dropout may be there if it drops nothing. None if the
    network is not such a chain of its own trainable layers.
    """
    if not isinstance(model, nn.Sequential):
        return None
    kinds = {
        name: part
        for name, part in model.named_children()
        if not isinstance(part, nn.Flatten | nn.Dropout | nn.Identity)
    }
    expected = [nn.ReLU if place % 2 else nn.Linear for place in range(len(kinds))]
    parts = list(kinds.values())
    if len(parts) % 2 == 0 or [type(part) for part in parts] != expected:
        return None
    linear = {n: part for n, part in kinds.items() if isinstance(part, nn.Linear)}
    whole = all(
        part.bias is not None and part.weight.requires_grad and part.bias.requires_grad
        for part in linear.values()
    )
    shared = len({id(part) for part in parts}) < len(parts)
    first = next(iter(model.children()))
    plain_flatten = isinstance(first, nn.Flatten) and (
        first.start_dim,
        first.end_dim,
    ) == (1, -1)
    num_flattens = sum(isinstance(part, nn.Flatten) for part in model.children())
    is_chain = plain_flatten and num_flattens == 1
    return list(linear) if whole and is_chain and not shared else None
