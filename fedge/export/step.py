"""One optimizer step of a network as a function of tensors: what a graph is made from.

The function has no memory: model, optimizer state and running statistics come in as
vectors and go out as new ones. It does what `fedge.train.trainer` does, in that order.
"""

import copy
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fedge.arrays import ModelSpec
from fedge.config import OptimizerName
from fedge.errors import CompressionError
from fedge.runtime.graph import GraphInfo
from fedge.runtime.training import BETA1, BETA2

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (outputs, targets), a mean
Step: TypeAlias = Callable[..., tuple[Tensor, ...]]


def check_traceable(model: nn.Module) -> None:
    """Raise CompressionError, with the reason, for what no graph can train."""
    for name, part in model.named_modules():
        where = f"layer {name!r} ({type(part).__name__})"
        drops = float(getattr(part, "dropout", 0.0) or 0.0) if _may_drop(part) else 0.0
        if (isinstance(part, _DropoutNd) and part.p > 0.0) or drops > 0.0:
            raise CompressionError(
                f"{where}: a training graph has no random numbers; set model.dropout=0"
            )
        if isinstance(part, _BatchNorm):
            if part.running_mean is None or part.running_var is None:
                raise CompressionError(f"{where}: it keeps no running statistics")
            if part.momentum is None:
                raise CompressionError(
                    f"{where}: momentum=None counts batches, which a graph does not"
                )


def _may_drop(part: nn.Module) -> bool:
    return isinstance(part, nn.RNNBase | nn.MultiheadAttention)


class _OpenBatchNorm(nn.Module):
    """Batch normalization in plain arithmetic; its new statistics are left to be taken.

    The exporter's own translation of the training mode is wrong, without an error.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.eps = norm.eps
        self.momentum = float(norm.momentum or 0.0)
        self.frozen = torch.tensor(False)
        self.new: tuple[Tensor, Tensor] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        axes = [0, *range(2, inputs.ndim)]
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        count = inputs.numel() // inputs.shape[1]
        old_mean, old_var = (
            self.get_buffer("running_mean"),
            self.get_buffer("running_var"),
        )
        mean = inputs.mean(axes)
        centred = inputs - mean.view(shape)
        var = (centred * centred).mean(axes)  # a square would become a slow power
        unbiased = var.detach() * count / (count - 1)  # nan for one value: not chosen
        self.new = (
            torch.where(self.frozen, old_mean, self._moved(old_mean, mean.detach())),
            torch.where(self.frozen, old_var, self._moved(old_var, unbiased)),
        )
        mean = torch.where(self.frozen, old_mean, mean)
        var = torch.where(self.frozen, old_var, var)
        scale = torch.rsqrt(var + self.eps)
        result = (inputs - mean.view(shape)) * scale.view(shape)
        if self.weight is not None:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result

    def _moved(self, old: Tensor, new: Tensor) -> Tensor:
        return (1.0 - self.momentum) * old + self.momentum * new


def open_twin(model: nn.Module) -> nn.Module:
    """Return a copy in training mode with the same names, fit for tracing."""
    twin = copy.deepcopy(model).train()
    for name, part in list(twin.named_modules()):
        if isinstance(part, _BatchNorm):
            parent, _, own = name.rpartition(".")
            setattr(twin.get_submodule(parent), own, _OpenBatchNorm(part))
        elif isinstance(part, _DropoutNd):
            part.eval()
    return twin


def make_step(model: nn.Module, info: GraphInfo, loss: Loss) -> Step:
    """Return the step: inputs in the order of `info.inputs()`, outputs likewise.

    Args:
        model: an `open_twin`.
        info: which inputs there are.
        loss: the mean loss of a batch.
    """
    spec, names = info.spec, tuple(info.inputs())
    norms = {n: p for n, p in model.named_modules() if isinstance(p, _OpenBatchNorm)}

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, tensors, strict=True))
        buffers = _parts(given["buffers"], spec, False) if "buffers" in given else {}

        def loss_of(parts: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            for norm in norms.values():
                norm.frozen = given["frozen"]
            outputs = functional_call(model, {**parts, **buffers}, (given["x"],))
            return loss(outputs, given["y"]), {**buffers, **_statistics(norms)}

        found = grad_and_value(loss_of, has_aux=True)(
            _parts(given["params"], spec, True)
        )
        grads, (value, changed) = found
        trained = [spec.name for spec in spec.arrays if spec.trainable]
        grad = torch.cat([grads[name].reshape(-1) for name in trained])
        new = _optimized(info, given, _finished(info, given, grad))
        if info.batch_norm:
            new += (torch.cat([changed[name].reshape(-1) for name in buffers]),)
        return (value, *new)

    return step


def _statistics(norms: Mapping[str, _OpenBatchNorm]) -> dict[str, Tensor]:
    found = {}
    for name, norm in norms.items():
        if norm.new is not None:  # the network may have a layer that it does not use
            prefix = f"{name}." if name else ""
            found[f"{prefix}running_mean"], found[f"{prefix}running_var"] = norm.new
    return found


def _parts(vector: Tensor, spec: ModelSpec, trainable: bool) -> dict[str, Tensor]:
    """Return the arrays that lie in the vector of the trained values, or buffers."""
    arrays = [array for array in spec.arrays if array.trainable is trainable]
    parts = torch.split(vector, [array.size for array in arrays])
    return {a.name: p.reshape(a.shape) for a, p in zip(arrays, parts, strict=True)}


def _finished(info: GraphInfo, given: Mapping[str, Tensor], grad: Tensor) -> Tensor:
    """Return the gradient with the proximal term, mask, clipping and decay."""
    params = given["params"]
    if info.proximal:
        grad = grad + given["proximal_mu"] * (params - given["start"])
    if info.masked:
        grad = torch.where(given["mask"], grad, torch.zeros_like(grad))
    if info.clip_norm:
        norm = (grad * grad).sum().sqrt()
        grad = grad * (given["clip_norm"] / (norm + 1e-6)).clamp(max=1.0)
    if info.weight_decay:
        grad = grad + given["weight_decay"] * params
    return grad


def _optimized(
    info: GraphInfo, given: Mapping[str, Tensor], grad: Tensor
) -> tuple[Tensor, ...]:
    """Return the new parameters and optimizer state."""
    params, rate = given["params"], given["learning_rate"]
    if info.optimizer is OptimizerName.adam:
        mean = given["mean"] + (grad - given["mean"]) * (1.0 - BETA1)
        square = given["square"] * BETA2 + grad * grad * (1.0 - BETA2)
        deviation = square.sqrt() / given["correction"] + given["epsilon"]
        return params - rate * mean / deviation, mean, square
    if not info.momentum:
        return (params - rate * grad,)
    velocity = given["velocity"] * given["momentum"] + grad
    return params - rate * velocity, velocity


class ModelOutputs(nn.Module):
    """The network as a function of inputs and vectors: inputs of `info`, in order."""

    def __init__(self, model: nn.Module, info: GraphInfo) -> None:
        super().__init__()
        self._model = [copy.deepcopy(model).eval()]  # no submodule: nothing of its own
        self._spec = info.spec

    def forward(
        self, x: Tensor, params: Tensor, buffers: Tensor | None = None
    ) -> Tensor:
        """Return the outputs."""
        parts = _parts(params, self._spec, True)
        if buffers is not None:
            parts |= _parts(buffers, self._spec, False)
        outputs: Tensor = functional_call(self._model[0], parts, (x,))
        return outputs
