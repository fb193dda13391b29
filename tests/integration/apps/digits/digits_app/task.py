"""The model and its data: a small network on a share of the digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    """One hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 16)
        self.fc2 = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.fc2(torch.relu(self.fc1(x)))


def load_data(partition_id: int, num_partitions: int) -> tuple[torch.Tensor, ...]:
    """Return every n-th image and label."""
    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    return images[partition_id::num_partitions], labels[partition_id::num_partitions]


def train(net: Net, data: tuple[torch.Tensor, ...], *, lr: float, steps: int) -> float:
    """Take some full-batch steps; return the last loss."""
    images, labels = data
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    loss = torch.tensor(0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item()


def test(net: Net, data: tuple[torch.Tensor, ...]) -> tuple[float, float]:
    """Return loss and accuracy."""
    images, labels = data
    with torch.no_grad():
        logits = net(images)
    loss = nn.functional.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).float().mean().item()
