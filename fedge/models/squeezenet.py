"""A small net of fire modules for images: few parameters, and no normalization.

A fire module squeezes all channels into a few and expands those through 1x1 and 3x3
kernels side by side. Without batch normalization, as the original, which suits
federated training (see `cnn`).

Source: Iandola et al. (2016), "SqueezeNet", arXiv:1602.07360. Differs in: a stem
without stride, pooling before a module only while the image is at least 8 pixels wide,
2x2 pooling, and no ReLU on the logits; He et al. (2015), arXiv:1502.01852, for the
initial weights, without which so deep a net does not begin to learn.
"""

import torch
from torch import Tensor, nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo
from fedge.models.mobilenet import SMALLEST_HALVED_SIDE

_SQUEEZE = 4  # the original's 8 leaves edge nets of 32 channels too thin
_LEAST_SQUEEZED = 4


class Fire(nn.Module):
    """Squeeze to few channels, expand to `outputs`: half of them 1x1, half 3x3."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        squeezed = max(_LEAST_SQUEEZED, outputs // _SQUEEZE)
        wide = max(1, outputs // 2)
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, squeezed, 1), nn.ReLU())
        self.expand1 = nn.Conv2d(squeezed, wide, 1)
        self.expand3 = nn.Conv2d(squeezed, max(1, outputs - wide), 3, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 (n, max(2, outputs), height, width)."""
        few = self.squeeze(inputs)
        return torch.cat([self.expand1(few), self.expand3(few)], dim=1).relu()


def make_squeezenet(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return a net from float32 (n, channels, height, width) to logits (n, outputs).

    A 3x3 stem of `config.widths[0]` channels, a fire module for each of
    `config.widths`, dropout, a 1x1 convolution to the classes, and the mean over all
    positions.
    """
    channels, height, width = info.input_shape
    side, size = min(height, width), config.widths[0]
    layers: list[nn.Module] = [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU()]
    for new_size in config.widths:
        if side >= SMALLEST_HALVED_SIDE:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        layers.append(Fire(size, new_size))
        size = max(2, new_size)
    return _initialized(
        *layers,
        nn.Dropout(config.dropout),
        nn.Conv2d(size, info.num_outputs, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _initialized(*layers: nn.Module) -> nn.Module:
    net = nn.Sequential(*layers)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return net
