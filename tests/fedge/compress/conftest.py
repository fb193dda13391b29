"""Two exported networks with examples: convolutions with zeros, and a recurrent one."""

import numpy as np
import pytest
import torch
from torch import nn

from fedge.arrays import AnyArray, Float32
from fedge.export.onnx import export_onnx


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.gru = nn.GRU(8, 64, batch_first=True)
        self.head = nn.Linear(64, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.embedding(tokens))
        logits: torch.Tensor = self.head(states[:, -1])
        return logits


@pytest.fixture(scope="session")
def images() -> Float32:
    return np.random.default_rng(1).normal(size=(100, 1, 8, 8)).astype(np.float32)


@pytest.fixture(scope="session")
def conv_model(images: Float32) -> bytes:
    """A network whose smaller half of each weight matrix is zero."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    with torch.no_grad():
        for weight in (p for p in net.parameters() if p.dim() > 1):
            weight[weight.abs() < weight.abs().median()] = 0.0
    return export_onnx(net, images)


@pytest.fixture(scope="session")
def tokens() -> AnyArray:
    return np.random.default_rng(2).integers(0, 20, (70, 12))


@pytest.fixture(scope="session")
def recurrent_model(tokens: AnyArray) -> bytes:
    torch.manual_seed(2)
    return export_onnx(Recurrent(), tokens)
