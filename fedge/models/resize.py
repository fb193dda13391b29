"""A network with fewer channels or units than it was built with: shapes as data.

Structured pruning leaves a smaller network of the same architecture. What a device is
sent is not that network but the shapes of its arrays; the device builds the network
that it knows and makes it narrower. Not in here: which channels go
(`fedge.compress.structured`).
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from fedge.data.dataset import DataInfo
from fedge.errors import ConfigError
from fedge.models.build import fastest_layout

Shapes = Mapping[str, tuple[int, ...]]

GATES = {nn.GRU: 3, nn.LSTM: 4}


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a network."""
    return {name: tuple(part.shape) for name, part in model.named_parameters()}


def resize(model: nn.Module, shapes: Shapes, info: DataInfo) -> nn.Module:
    """Make a network narrower, in place, and return it; its values become zeros.

    Guarantee: `shapes_of(resize(m, s, info)) == s`, and the result computes outputs of
    the shape that `m` computed.

    Args:
        model: as built.
        shapes: of all its parameters; no axis longer than it was built.
        info: what it is fed with.

    Raises:
        ConfigError: names differ, an axis is longer or its length below 1, a layer of a
            kind that cannot be resized would have to be, or the layers do not fit
            together. May come from a stranger: the model is then of no use any more.
    """
    built = shapes_of(model)
    if built.keys() != shapes.keys():
        odd = sorted(built.keys() ^ shapes.keys())
        raise ConfigError(f"shapes: {odd[0]!r} is not in both model and shapes")
    for name, shape in shapes.items():
        _check_axes(name, built[name], shape)
    expected = _output_shape(model, info)
    for prefix, part in model.named_modules():
        own = {
            name: tuple(shapes[f"{prefix}.{name}" if prefix else name])
            for name, _ in part.named_parameters(recurse=False)
        }
        if any(tuple(getattr(part, name).shape) != own[name] for name in own):
            _resize_layer(part, own, prefix)
    try:
        found = _output_shape(model, info)
    except (RuntimeError, ValueError) as exc:
        raise ConfigError("shapes: the layers do not fit together") from exc
    if found != expected:
        raise ConfigError(f"shapes: outputs of shape {found}, need {expected}")
    return fastest_layout(model)


def _check_axes(name: str, built: tuple[int, ...], shape: tuple[int, ...]) -> None:
    fits = len(shape) == len(built) and all(
        1 <= new <= old for new, old in zip(shape, built, strict=True)
    )
    if not fits:
        raise ConfigError(f"shapes: {name!r} is {shape}, at most {built} was built")


def _resize_layer(part: nn.Module, shapes: Shapes, name: str) -> None:
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = shapes["weight"]
    elif isinstance(part, _ConvNd) and not part.transposed:
        outputs, inputs = shapes["weight"][:2]
        if part.groups > 1:  # depthwise: each channel has its own filters
            if part.groups != part.in_channels or outputs % (
                part.out_channels // part.groups
            ):
                raise ConfigError(f"shapes: {name!r} has groups that cannot be resized")
            part.groups = outputs // (part.out_channels // part.groups)
        part.in_channels, part.out_channels = inputs * part.groups, outputs
    elif isinstance(part, _BatchNorm):
        (part.num_features,) = shapes["weight"]
        _resize_statistics(part)
    elif isinstance(part, nn.Embedding):
        part.num_embeddings, part.embedding_dim = shapes["weight"]
    elif isinstance(part, nn.LayerNorm):
        part.normalized_shape = shapes["weight"]
    elif isinstance(part, nn.GRU | nn.LSTM):
        _resize_recurrent(part, shapes, name)
    else:
        raise ConfigError(
            f"shapes: {name!r} is a {type(part).__name__}, which cannot be resized"
        )
    for parameter, shape in shapes.items():
        setattr(part, parameter, nn.Parameter(torch.zeros(shape)))


def _resize_statistics(part: _BatchNorm) -> None:
    if part.running_mean is not None and part.running_var is not None:
        part.running_mean = torch.zeros(part.num_features)
        part.running_var = torch.ones(part.num_features)


def _resize_recurrent(part: nn.GRU | nn.LSTM, shapes: Shapes, name: str) -> None:
    gates = GATES[type(part)]
    rows, part.input_size = shapes["weight_ih_l0"]
    if part.num_layers > 1 or part.bidirectional or rows % gates:
        raise ConfigError(
            f"shapes: {name!r} has several layers or directions, or {rows} rows for "
            f"{gates} gates; only single recurrent layers can be resized"
        )
    part.hidden_size = rows // gates


@torch.no_grad()
def _output_shape(model: nn.Module, info: DataInfo) -> tuple[int, ...]:
    was_training = model.training
    kind = torch.float32 if info.normalization.mean else torch.int64
    outputs: torch.Tensor = model.eval()(torch.zeros(2, *info.input_shape, dtype=kind))
    model.train(was_training)
    return tuple(outputs.shape)
