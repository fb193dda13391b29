"""Structured pruning: whole channels and hidden units go, and the network gets smaller.

Convolutions, linear layers and what hangs together with them (normalizations,
depthwise convolutions, residual sums) are cut by torch-pruning, which follows the
channels through the network; recurrent layers, which it cannot cut, are sliced here.
Attention stays whole, and with it the residual stream that it reads and writes: of a
transformer the hidden units of the feed-forward parts go.
Channels are ranked by the L2 norm of all weights that touch them, in their own layer.
The outputs of the network stay whole. Not in here: when to cut (`schedule`), and the
masks of single weights (`prune`).

Source: Fang et al. (2023), "DepGraph", arXiv:2301.12900; Li et al. (2017),
arXiv:1608.08710, for norms as importance.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fedge.arrays import AnyArray
from fedge.errors import CompressionError
from fedge.models.resize import GATES, Shapes, shapes_of
from fedge.models.transformer import CausalAttention

_SMALLEST = 2  # channels that are left in any layer
_KEPT_WHOLE = (CausalAttention, nn.MultiheadAttention)


def narrowed(
    model: nn.Module,
    example: AnyArray,
    *,
    share: float,
    multiple: int = 1,
    built: Shapes | None = None,
) -> nn.Module:
    """Return a smaller copy: in each hidden layer this share of the channels is gone.

    Guarantee: deterministic; the copy takes the same inputs and gives outputs of the
    same shape; the model itself is unchanged. Nothing is gone where a layer is too
    narrow, or all layers are of kinds that cannot be cut (`check_removable`).

    Args:
        model: the network.
        example: a batch of inputs, float32 or int64, shape (n, ...), n >= 1; only its
            shape and dtype matter.
        share: of each hidden layer's channels or units, in (0, 1), as it was built.
        multiple: leave a multiple of so many, >= 1: runtimes compute blocks of 8 or 16
            channels, and 10 of them can take longer than 16.
        built: shapes of the parameters as they were built; None: those of `model`.

    Raises:
        ValueError: a number is out of range.
        CompressionError: a recurrent network has layers that are not known.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share: {share} not in (0, 1)")
    if multiple < 1:
        raise ValueError(f"multiple: {multiple} must be at least 1")
    twin, inputs = copy.deepcopy(model).eval(), torch.from_numpy(example[:1].copy())
    recurrent = [part for part in twin.modules() if isinstance(part, nn.GRU | nn.LSTM)]
    targets = _targets(twin, built or shapes_of(twin), share, multiple)
    if recurrent:
        _slice_recurrent(twin, inputs, targets)
    else:
        _cut_channels(twin, inputs, targets)
    return twin.train(model.training)


def check_removable(
    model: nn.Module, example: AnyArray, *, share: float, multiple: int = 1
) -> None:
    """Raise CompressionError if `narrowed` would remove nothing."""
    smaller = narrowed(model, example, share=share, multiple=multiple)
    before, after = _num_values(model), _num_values(smaller)
    if not after < before:
        raise CompressionError(
            f"structured pruning of {share:.0%}: none of {before} parameters could be "
            f"removed; its hidden layers are too narrow, or of a kind that cannot be "
            f"cut: lower compression.channel_multiple ({multiple} now), or set "
            f"compression.channel_sparsity=0"
        )


def _targets(
    model: nn.Module, built: Shapes, share: float, multiple: int
) -> dict[nn.Module, int]:
    """Return how many channels or units are left in each layer that can be cut."""
    targets = {}
    for prefix, part in model.named_modules():
        weight = "weight_hh_l0" if isinstance(part, nn.GRU | nn.LSTM) else "weight"
        name = f"{prefix}.{weight}" if prefix else weight
        if isinstance(part, nn.GRU | nn.LSTM):
            now, width = part.hidden_size, built[name][1]
        elif isinstance(part, nn.Linear | _ConvNd):
            now, width = len(part.weight), built[name][0]
        else:
            continue
        wanted = max(_SMALLEST, round(width * (1.0 - share)))
        targets[part] = min(now, -(-wanted // multiple) * multiple)
    return targets


def _num_values(model: nn.Module) -> int:
    return sum(part.numel() for part in model.parameters())


def _cut_channels(
    model: nn.Module, inputs: Tensor, targets: Mapping[nn.Module, int]
) -> None:
    # It takes shares, of which it keeps the whole part: half a channel more, so that
    # rounding does not lose one.
    shares = {
        part: max(0.0, 1.0 - (target + 0.5) / len(part.get_parameter("weight")))
        for part, target in targets.items()
    }
    attention = [part for part in model.modules() if isinstance(part, _KEPT_WHOLE)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how it is used
        import torch_pruning  # the coordinator's only; takes a second

        pruner = torch_pruning.pruner.BasePruner(
            model,
            inputs,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.0,
            pruning_ratio_dict=shares,
            max_pruning_ratio=1.0,
            ignored_layers=[*_layers_that_ran(model, inputs)[-1:], *attention],
        )
        pruner.step()


def _layers_that_ran(model: nn.Module, inputs: Tensor) -> list[nn.Module]:
    """Return the layers that have weights of their own, in the order they run in."""
    ran: list[nn.Module] = []
    hooks = [
        part.register_forward_hook(lambda part, _inputs, _outputs: ran.append(part))
        for part in model.modules()
        if list(part.parameters(recurse=False))
    ]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    if not ran:
        raise CompressionError("structured pruning: the model has no parameters")
    return ran


# -- recurrent layers ------------------------------------------------------------------


def _slice_recurrent(
    model: nn.Module, inputs: Tensor, targets: Mapping[nn.Module, int]
) -> None:
    """Remove hidden units from each recurrent layer, and from whoever reads them."""
    chain = _layers_that_ran(model, inputs)
    _check_known(chain)
    for layer, reader in pairwise(chain):
        if isinstance(layer, nn.GRU | nn.LSTM):
            kept = _kept_units(layer, reader, targets[layer])
            _keep_units(layer, kept)
            _keep_inputs(reader, kept)


def _check_known(chain: Sequence[nn.Module]) -> None:
    for part in chain:
        several = isinstance(part, nn.RNNBase) and (
            part.num_layers > 1 or part.bidirectional
        )
        if several or not isinstance(part, nn.RNNBase | nn.Linear | nn.Embedding):
            raise CompressionError(
                f"structured pruning: {type(part).__name__} in a recurrent network; "
                f"only single GRU and LSTM layers, linear layers and embeddings are "
                f"cut: set compression.channel_sparsity=0"
            )


def _kept_units(layer: nn.GRU | nn.LSTM, reader: nn.Module, num_kept: int) -> Tensor:
    """Return the hidden units with the largest weights, in order, int64."""
    units, gates = layer.hidden_size, GATES[type(layer)]
    incoming, hidden = (
        getattr(layer, name).detach() for name in ("weight_ih_l0", "weight_hh_l0")
    )
    rows = [w.view(gates, units, -1).pow(2).sum((0, 2)) for w in (incoming, hidden)]
    read = _input_weight(reader).detach().pow(2).sum(0)
    score = rows[0] + rows[1] + hidden.pow(2).sum(0) + read
    best = torch.argsort(score, descending=True, stable=True)[:num_kept]
    return best.sort().values


def _keep_units(layer: nn.GRU | nn.LSTM, kept: Tensor) -> None:
    units, gates = layer.hidden_size, GATES[type(layer)]
    rows = (torch.arange(gates)[:, None] * units + kept).flatten()
    layer.hidden_size = len(kept)
    for name, value in list(layer.named_parameters(recurse=False)):
        sliced = value.detach()[rows]
        if name == "weight_hh_l0":
            sliced = sliced[:, kept]
        setattr(layer, name, nn.Parameter(sliced.clone()))


def _keep_inputs(reader: nn.Module, kept: Tensor) -> None:
    weight = nn.Parameter(_input_weight(reader).detach()[:, kept].clone())
    if isinstance(reader, nn.Linear):
        reader.weight, reader.in_features = weight, len(kept)
    elif isinstance(reader, nn.GRU | nn.LSTM):
        reader.weight_ih_l0, reader.input_size = weight, len(kept)


def _input_weight(reader: nn.Module) -> Tensor:
    weight = reader.weight_ih_l0 if isinstance(reader, nn.RNNBase) else reader.weight
    assert isinstance(weight, Tensor)
    return weight
