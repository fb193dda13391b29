"""A small convolutional net for images of any size.

Without batch normalization on purpose: its running statistics are averaged over devices
whose data differ, which harms federated training, and it needs batches of some size.

Source: the shape of the CNN in McMahan et al. (2017), arXiv:1602.05629, with 3x3
kernels.
"""

from torch import nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo

_SMALLEST_POOLED_SIDE = 4  # pooling leaves at least 2x2 positions


def make_cnn(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return a net from float32 (n, channels, height, width) to logits (n, outputs).

    For each of `config.widths` a conv3x3-ReLU, after every `config.pool_every` of them
    2x2 max pooling while the shorter side is at least 4; then linear
    (`config.hidden`)-ReLU-dropout and the output layer.
    """
    channels, height, width = info.input_shape
    layers: list[nn.Module] = []
    for number, size in enumerate(config.widths, start=1):
        layers += [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU()]
        channels = size
        is_due = number % config.pool_every == 0
        if is_due and min(height, width) >= _SMALLEST_POOLED_SIDE:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels * height * width, config.hidden),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, info.num_outputs),
    )
