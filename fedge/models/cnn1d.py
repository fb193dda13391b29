"""A small convolutional net over time, for signals of one or several sensors."""

from torch import nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo

_KERNEL = 5  # at 50 Hz a tenth of a second: the shortest events of human motion
_SHORTEST_POOLED_TIME = 4


def make_cnn1d(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return a net from float32 (n, channels, time) to logits (n, outputs).

    For each of `config.widths` a block conv5-ReLU, halved by max pooling while there
    are at least 4 positions; then linear (`config.hidden`)-ReLU-dropout and the output
    layer.
    """
    channels, time = info.input_shape
    layers: list[nn.Module] = []
    for size in config.widths:
        conv = nn.Conv1d(channels, size, _KERNEL, padding=_KERNEL // 2)
        layers += [conv, nn.ReLU()]
        channels = size
        if time >= _SHORTEST_POOLED_TIME:
            layers.append(nn.MaxPool1d(2))
            time //= 2
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels * time, config.hidden),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, info.num_outputs),
    )
