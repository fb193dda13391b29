"""MobileNetV2 and MobileNetV3 for small images: thin layers joined by wide ones.

A block widens its input, looks at each channel with a depthwise convolution, and makes
it thin again without a nonlinearity; where shape and width allow it, the input is
added. V3 also weighs the channels (squeeze-and-excitation) and bends with hard-swish,
both made of operations that are cheap without a floating-point unit.

Source: Sandler et al. (2018), arXiv:1801.04381; Howard et al. (2019), arXiv:1905.02244;
Hu et al. (2018), arXiv:1709.01507, for squeeze-and-excitation. Differs in: a stem
without stride; a block halves the image where the width changes, and only while it is
at least 8 pixels wide; every V3 block has 3x3 kernels and weighs its channels.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo
from fedge.models.mobilenet import SMALLEST_HALVED_SIDE, convolution

_EXPANSION = 4  # 6 in V2, 1 to 6 in V3; edge nets are thin and have few blocks
_SQUEEZE = 4  # V3, section 5.3


class SqueezeExcite(nn.Module):
    """Multiply each channel by a number in [0, 1] that all channels' means decide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(1, channels // _SQUEEZE)
        self.gates = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 (n, channels, height, width), shaped as the inputs."""
        gates: Tensor = self.gates(inputs)
        return inputs * gates


class InvertedResidual(nn.Module):
    """Widen, look at each channel, weigh, thin; plus the input where it fits.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: 1, or 2 to halve height and width.
        activation: makes the nonlinearity.
        weigh: whether channels are weighed, as in V3.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        stride: int,
        activation: Callable[[], nn.Module],
        weigh: bool,
    ) -> None:
        super().__init__()
        wide = inputs * _EXPANSION
        depthwise = convolution(wide, wide, kernel=3, stride=stride, groups=wide)
        self.layers = nn.Sequential(
            *convolution(inputs, wide, kernel=1),
            activation(),
            *depthwise,
            *([SqueezeExcite(wide)] if weigh else []),
            activation(),
            *convolution(wide, outputs, kernel=1),
        )
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 (n, outputs, ceil(height / stride), ceil(width / stride))."""
        outputs: Tensor = self.layers(inputs)
        return inputs + outputs if self.adds_input else outputs


def make_mobilenet_v2(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return a net from float32 (n, channels, height, width) to logits (n, outputs).

    A 3x3 stem of `config.widths[0]` channels, a block for each of `config.widths`, a
    1x1 convolution to `config.hidden`, the mean over all positions, dropout, and the
    output layer; ReLU6.
    """
    activations = [nn.ReLU6] * len(config.widths)
    return nn.Sequential(
        *_body(config, info, nn.ReLU6, activations, weigh=False),
        *convolution(config.widths[-1], config.hidden, kernel=1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, info.num_outputs),
    )


def make_mobilenet_v3(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return a net from float32 (n, channels, height, width) to logits (n, outputs).

    A 3x3 stem of `config.widths[0]` channels, a weighing block for each of
    `config.widths` (ReLU in the first half, then hard-swish, section 5.2), a 1x1
    convolution to the width of the last block's inside, the mean over all positions,
    linear (`config.hidden`)-hard-swish-dropout, and the output layer.
    """
    num_early = len(config.widths) // 2
    num_late = len(config.widths) - num_early
    activations = [nn.ReLU] * num_early + [nn.Hardswish] * num_late
    last = config.widths[-1] * _EXPANSION
    return nn.Sequential(
        *_body(config, info, nn.Hardswish, activations, weigh=True),
        *convolution(config.widths[-1], last, kernel=1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(last, config.hidden),
        nn.Hardswish(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, info.num_outputs),
    )


def _body(
    config: ModelConfig,
    info: DataInfo,
    stem: Callable[[], nn.Module],
    activations: Sequence[Callable[[], nn.Module]],
    *,
    weigh: bool,
) -> list[nn.Module]:
    channels, height, width = info.input_shape
    side, size = min(height, width), config.widths[0]
    layers = [*convolution(channels, size, kernel=3), stem()]
    for new_size, activation in zip(config.widths, activations, strict=True):
        stride = 2 if new_size != size and side >= SMALLEST_HALVED_SIDE else 1
        layers.append(
            InvertedResidual(
                size, new_size, stride=stride, activation=activation, weigh=weigh
            )
        )
        side, size = (side + stride - 1) // stride, new_size
    return layers
