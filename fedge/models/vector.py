"""A network's values as one flat float32 vector, and back.

The vector is everything the network's outputs depend on: trainable parameters, then
frozen parameters and the floating-point buffers of its state dict (running means and
variances). Integer buffers, such as batch normalization's `num_batches_tracked`, are
left out: they are counters that do not average and that no reference model reads.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fedge.arrays import ArraySpec, Float32, ModelSpec, trainable_first


def spec_of(module: nn.Module) -> ModelSpec:
    """Return names, shapes and order of the network's values.

    Prunable are trainable arrays of two or more axes (linear, convolution and recurrent
    weights, the output layer's too), except the weights of depthwise convolutions,
    which are few and each the only path of a channel, and embeddings, where a zero row
    loses a token.

    Raises:
        ValueError: a value is of another floating-point type than float32.
    """
    kept_whole = _kept_whole(module)
    return trainable_first(
        [
            ArraySpec(
                name,
                tuple(tensor.shape),
                trainable=tensor.requires_grad,
                prunable=tensor.requires_grad
                and tensor.ndim >= 2
                and id(tensor) not in kept_whole,
            )
            for name, tensor in _named_values(module)
        ]
    )


def params_of(module: nn.Module, spec: ModelSpec) -> Float32:
    """Return the network's values as one new vector, float32, shape (spec.size,)."""
    tensors = dict(_named_values(module))
    if not spec.arrays:
        return np.zeros(0, np.float32)
    flat = torch.cat([tensors[a.name].detach().reshape(-1) for a in spec.arrays])
    vector: Float32 = flat.cpu().numpy()
    return vector


def set_params(module: nn.Module, spec: ModelSpec, vector: Float32) -> None:
    """Copy the vector's values into the network, in place.

    Guarantee: `params_of` then returns the same vector, and later changes to `vector`
    do not reach the network.

    Raises:
        ValueError: the vector's shape is not (spec.size,); the network is unchanged.
    """
    arrays = spec.unflatten(vector)
    tensors = dict(_named_values(module))
    with torch.no_grad():
        for name, array in arrays.items():
            # A copy, because torch warns when it is given a read-only array.
            tensors[name].copy_(torch.from_numpy(array.copy()))


def _named_values(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from _float32(module.named_parameters())
    buffers = [pair for pair in module.named_buffers() if not _is_counter(pair[1])]
    if buffers:  # a state dict takes as long as all the rest
        persistent = module.state_dict(keep_vars=True)
        yield from _float32(pair for pair in buffers if pair[0] in persistent)


def _is_counter(buffer: Tensor) -> bool:
    return not (buffer.is_floating_point() or buffer.is_complex())


def _float32(
    tensors: Iterator[tuple[str, Tensor]] | Iterator[tuple[str, nn.Parameter]],
) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        if tensor.dtype is not torch.float32:
            raise ValueError(f"array {name!r} is {tensor.dtype}, need torch.float32")
        yield name, tensor


def _kept_whole(module: nn.Module) -> set[int]:
    return {
        id(part.weight)
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag)
        or (isinstance(part, _ConvNd) and part.groups == part.in_channels > 1)
    }
