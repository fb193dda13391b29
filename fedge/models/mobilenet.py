"""A small net of depthwise separable convolutions for images.

Few parameters and multiplications for its accuracy, and the layers that phone and
camera accelerators are built for. Its batch normalization has running statistics,
which are buffers at the end of the flat vector and are averaged like the rest. Its
successors are in `inverted_residual`.

Source: Howard et al. (2017), "MobileNets", arXiv:1704.04861, with ReLU6 as in
arXiv:1801.04381. Differs in: a stem without stride and halving only while the image is
at least 8 pixels wide, since edge images are small.
"""

from torch import nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo

SMALLEST_HALVED_SIDE = 8  # blocks keep at least 4x4 positions to look at


def make_mobilenet(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return a net from float32 (n, channels, height, width) to logits (n, outputs).

    A 3x3 stem of `config.widths[0]` channels, a separable block for each of
    `config.widths`, the mean over all positions, dropout, and the output layer.
    """
    channels, height, width = info.input_shape
    side, size = min(height, width), config.widths[0]
    layers = [*convolution(channels, size, kernel=3), nn.ReLU6()]
    for new_size in config.widths:
        stride = 2 if side >= SMALLEST_HALVED_SIDE else 1
        depthwise = convolution(size, size, kernel=3, stride=stride, groups=size)
        layers += [*depthwise, nn.ReLU6()]
        layers += [*convolution(size, new_size, kernel=1), nn.ReLU6()]
        side, size = (side + stride - 1) // stride, new_size
    return nn.Sequential(
        *layers,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(size, info.num_outputs),
    )


def convolution(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution that keeps the size (divided by the stride), normalized."""
    conv = nn.Conv2d(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,  # batch normalization has one
    )
    return [conv, nn.BatchNorm2d(outputs)]
