"""Our optimizers against torch's."""

from collections.abc import Callable

import pytest
import torch

from fedge.config import OptimizerName, TrainConfig
from fedge.train.optimizer import make_update

Oracle = Callable[[list[torch.Tensor], TrainConfig], torch.optim.Optimizer]


def make_sgd(values: list[torch.Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        values,
        lr=0.1,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        foreach=False,
    )


def make_adam(values: list[torch.Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        values, lr=0.1, weight_decay=config.weight_decay, foreach=False
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
@pytest.mark.parametrize(
    ("name", "oracle"),
    [(OptimizerName.sgd, make_sgd), (OptimizerName.adam, make_adam)],
)
def test_steps_are_those_of_torch(
    name: OptimizerName, oracle: Oracle, weight_decay: float
) -> None:
    config = TrainConfig(optimizer=name, momentum=0.9, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, generator=generator)
    expected = torch.nn.Parameter(values.clone())
    update, optimizer = make_update(config, values, 0.1), oracle([expected], config)
    for _ in range(5):
        grad = torch.randn(50, generator=generator)
        expected.grad = grad.clone()
        optimizer.step()
        update(grad)
    # Five float32 steps that may round differently.
    torch.testing.assert_close(values, expected.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OptimizerName)
def test_a_zero_without_gradient_stays_exactly_zero(name: OptimizerName) -> None:
    config = TrainConfig(optimizer=name, weight_decay=0.1)
    values = torch.tensor([0.0, 1.0])
    update = make_update(config, values, 0.1)
    for _ in range(3):
        update(torch.tensor([0.0, 1.0]))
    assert values[0].item() == 0.0
    assert values[1].item() < 1.0
