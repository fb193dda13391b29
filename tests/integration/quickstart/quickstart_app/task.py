"""The model and its data: a linear classifier on a share of the digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def make_model() -> nn.Module:
    """Return the model with the weights that everybody starts from."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def load_share(partition_id: int, num_partitions: int) -> tuple[torch.Tensor, ...]:
    """Return every n-th image and label."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    return images[partition_id::num_partitions], labels[partition_id::num_partitions]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Take some full-batch steps; return the last loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    loss = torch.tensor(0.0)
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item()
