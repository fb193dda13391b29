"""Parameters as views of one vector."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedge.train.flat import Layout, as_views, layout_of


def make_net(layout: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2, 2)
    )
    net.to(memory_format=layout)  # type: ignore[call-overload]  # missing in the stub
    return net


@given(st.lists(st.permutations(range(3)), max_size=3), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_memory_order_can_be_undone(orders: list[list[int]], seed: int) -> None:
    shapes = tuple((2, 3, 4) for _ in orders)
    layout = Layout(shapes, tuple(tuple(order) for order in orders))
    vector = np.random.default_rng(seed).random(24 * len(orders))
    np.testing.assert_array_equal(layout.from_memory(layout.to_memory(vector)), vector)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_views_have_the_parameters_values_and_strides(
    form: torch.memory_format,
) -> None:
    parameters = list(make_net(form).parameters())
    layout = layout_of(parameters)
    logical = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()
    views = layout.views(torch.from_numpy(layout.to_memory(logical)))
    pairs = list(zip(views, parameters, strict=True))
    assert all(torch.equal(view, parameter) for view, parameter in pairs)
    assert all(view.stride() == parameter.stride() for view, parameter in pairs)


def test_steps_of_the_network_change_the_vector() -> None:
    net = make_net(torch.channels_last)
    parameters = list(net.parameters())
    layout = layout_of(parameters)
    logical = torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()
    values = torch.from_numpy(layout.to_memory(logical))
    with as_views(parameters, layout, values):
        net(torch.ones(1, 1, 5, 5)).sum().backward()
        grads = [p.grad.clone() for p in parameters if p.grad is not None]
        torch.optim.SGD(parameters, lr=1.0).step()
    moved = torch.from_numpy(layout.to_memory(logical))
    for view, grad in zip(layout.views(moved), grads, strict=True):
        view.sub_(grad)
    assert torch.equal(values, moved)
    assert not torch.equal(values, torch.from_numpy(layout.to_memory(logical)))


def test_parameters_get_their_own_storage_back_after_an_error() -> None:
    parameter = nn.Parameter(torch.ones(2))
    values = torch.zeros(2)
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(RuntimeError, match="stop"))
        layout = layout_of([parameter])
        stack.enter_context(as_views([parameter], layout, values))
        assert parameter.tolist() == [0.0, 0.0]
        raise RuntimeError("stop")
    assert parameter.tolist() == [1.0, 1.0]
    assert parameter.grad is None
