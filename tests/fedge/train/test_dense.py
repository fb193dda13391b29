"""Steps that are written out against PyTorch's own backward pass."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedge.config import Task
from fedge.train.dense import dense_chain

RATE = 0.1
# Gradients are of order 0.1, and float32 has 7 digits.
TOLERANCE = 2e-6


def network(*widths: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for num_in, num_out in pairwise(widths):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def examples(count: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    weights = torch.rand(count)
    return torch.randn(count, width), torch.randint(0, 3, (count,)), weights


def values_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.named_parameters()}


def stepped_by_autograd(
    net: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    losses = F.cross_entropy(net(inputs), targets, reduction="none")
    loss = (losses * weights).sum()
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    stepped = {
        name: value.detach() - RATE * value.grad
        for name, value in net.named_parameters()
        if value.grad is not None
    }
    return stepped, loss.detach()


# The third has matrices of more than a million values, which are read in parts, and
# the fourth one with more examples than are few.
@pytest.mark.parametrize(
    ("widths", "count"),
    [((6, 3), 5), ((6, 8, 3), 5), ((700, 1500, 701, 3), 4), ((1100, 1000, 3), 70)],
)
def test_a_step_is_that_of_autograd(widths: tuple[int, ...], count: int) -> None:
    net, batch = network(*widths), examples(count, widths[0])
    chain, values = dense_chain(net, Task.classification), values_of(net)
    assert chain is not None
    expected, expected_loss = stepped_by_autograd(net, *batch)
    loss = chain.descend(values, *batch, learning_rate=RATE)
    assert values.keys() == expected.keys()
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(values, expected, rtol=0.0, atol=TOLERANCE)


def test_gradients_are_what_a_step_subtracts() -> None:
    net, batch = network(6, 8, 3), examples(5, 6)
    chain, values = dense_chain(net, Task.classification), values_of(net)
    assert chain is not None
    grads, loss = chain.gradients(values, *batch)
    expected = {name: value - RATE * grads[name] for name, value in values.items()}
    torch.testing.assert_close(
        chain.descend(values, *batch, learning_rate=RATE), loss, rtol=0.0, atol=0.0
    )
    torch.testing.assert_close(values, expected, rtol=0.0, atol=TOLERANCE)


def test_losses_of_certain_outputs_are_finite() -> None:
    net = network(6, 3)
    chain, values = dense_chain(net, Task.classification), values_of(net)
    assert chain is not None
    values["1.bias"] = torch.tensor([1e4, 0.0, -1e4])
    batch = (torch.zeros(2, 6), torch.tensor([0, 2]), torch.ones(2))
    loss = chain.descend(values, *batch, learning_rate=RATE)
    assert loss.item() == pytest.approx(2e4)
