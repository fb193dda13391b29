"""Linear model and multi-layer perceptron, for any input of numbers.

They are what the convex theory of federated learning is about, and the right size for
tables. Inputs of more than one axis are flattened; text has models of its own.
"""

import math

from torch import nn

from fedge.config import ModelConfig
from fedge.data.dataset import DataInfo


def make_logistic(_config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return one linear layer: float32 (n, *input_shape) to logits (n, outputs)."""
    layer = nn.Linear(math.prod(info.input_shape), info.num_outputs)
    return nn.Sequential(nn.Flatten(), layer)


def make_mlp(config: ModelConfig, info: DataInfo) -> nn.Module:
    """Return linear-ReLU-dropout for each of `config.widths`, then a linear layer."""
    layers: list[nn.Module] = [nn.Flatten()]
    size = math.prod(info.input_shape)
    for width in config.widths:
        layers += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(config.dropout)]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, info.num_outputs))
