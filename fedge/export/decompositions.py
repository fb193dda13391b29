"""Backward passes in terms of operators that ONNX has.

PyTorch's own decompositions keep the backward pass of a convolution and of max pooling
whole, since its backends have kernels for them. Here they become a convolution and a
sum of scattered values. Both hold for any batch size, stride, padding, dilation and
number of groups, and for windows that overlap.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions

_aten = torch.ops.aten


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what tracing replaces: operator and function."""
    return {
        **core_aten_decompositions(),
        _aten.convolution_backward.default: _convolution_backward,
        _aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    }


def _convolution_backward(  # noqa: PLR0917 - the signature is PyTorch's
    grad: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    if transposed:
        raise NotImplementedError("the gradient of a transposed convolution")
    sides = range(len(stride))
    grad_inputs = grad_weight = grad_bias = None
    if wanted[0]:
        reached = [
            (grad.shape[2 + i] - 1) * stride[i]
            - 2 * padding[i]
            + dilation[i] * (weight.shape[2 + i] - 1)
            + 1
            for i in sides
        ]
        rest = [inputs.shape[2 + i] - reached[i] for i in sides]
        grad_inputs = _aten.convolution(
            grad, weight, None, stride, padding, dilation, True, rest, groups
        )
    if wanted[1]:
        grad_weight = _weight_gradient(
            grad,
            inputs,
            weight,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
    if wanted[2]:
        grad_bias = grad.sum([0, *range(2, grad.ndim)])
    return grad_inputs, grad_weight, grad_bias


def _weight_gradient(
    grad: Tensor,
    inputs: Tensor,
    weight: Tensor,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Return the gradient as a convolution of the inputs with the outputs' gradient.

    The batch is summed over, so it takes the place of the input channels; stride and
    dilation change places.
    """
    batch, per_group = inputs.shape[0], weight.shape[1]
    space = tuple(range(3, inputs.ndim + 1))
    grouped = inputs.reshape(batch, groups, per_group, *inputs.shape[2:])
    moved = grouped.permute(2, 1, 0, *space)
    moved = moved.reshape(per_group, groups * batch, *inputs.shape[2:])
    found = _aten.convolution(
        moved,
        grad.transpose(0, 1),
        None,
        dilation,
        padding,
        stride,
        False,
        [0] * len(stride),
        groups,
    )
    for axis, side in enumerate(weight.shape[2:], start=2):
        found = found.narrow(axis, 0, side)  # a stride may leave a rest at the border
    result: Tensor = found.transpose(0, 1).reshape(weight.shape)
    return result


def _max_pool_backward(  # noqa: PLR0917 - the signature is PyTorch's
    grad: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    lead = inputs.shape[:-2]
    flat = grad.new_zeros((*lead, inputs.shape[-2] * inputs.shape[-1]))
    summed = flat.scatter_add(-1, indices.flatten(-2), grad.flatten(-2))
    return summed.reshape(inputs.shape)
