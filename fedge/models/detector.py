"""A tiny single-shot detector: one pass over the image finds all objects.

What its outputs mean is said in `fedge.runtime.detector`, which also turns them into
boxes. Without batch normalization, for the reasons given in `cnn`.
"""

from torch import nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo
from fedge.runtime.detector import NUM_PLACE_CHANNELS

_SMALLEST_HALVED_SIDE = 16  # at least 8x8 cells are left: 4 pixels of a 32x32 image


def make_detector(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return a net from float32 (n, channels, height, width) to one answer per cell.

    For each of `config.widths` a block conv3x3-ReLU, with 2x2 max pooling while the
    shorter side is at least 16; then conv3x3 (`config.hidden`)-ReLU-dropout and a 1x1
    convolution to float32 (n, 5 + classes, rows, columns).
    """
    channels, height, width = info.input_shape
    layers: list[nn.Module] = []
    for size in (*config.widths, config.hidden):
        layers += [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU()]
        channels = size
        if min(height, width) >= _SMALLEST_HALVED_SIDE:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    return nn.Sequential(
        *layers,
        nn.Dropout(config.dropout),
        nn.Conv2d(channels, NUM_PLACE_CHANNELS + info.num_outputs, 1),
    )
