"""Small networks of every kind that is exported; one tensor in, one out."""

import pytest
import torch
from torch import nn


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.gru = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(self.embedding(tokens))
        logits: torch.Tensor = self.head(states)
        return logits


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.fixture(scope="module")
def linear() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1))


@pytest.fixture(scope="module")
def depthwise() -> nn.Module:
    torch.manual_seed(2)
    net = _depthwise()
    net(torch.randn(64, 1, 8, 8))  # running statistics other than the initial ones
    return net


@pytest.fixture(scope="module")
def recurrent() -> nn.Module:
    torch.manual_seed(3)
    return Recurrent()
