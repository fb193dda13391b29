"""A network's values as one vector and back."""

import numpy as np
import pytest
import torch
from torch import nn

from fedge.models.vector import params_of, set_params, spec_of


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def test_trainable_parameters_come_first_and_counters_are_left_out() -> None:
    spec = spec_of(make_net())
    assert [array.name for array in spec.arrays] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "2.weight",
        "2.bias",
        "4.weight",
        "4.bias",
        "2.running_mean",
        "2.running_var",
    ]
    assert spec.num_trainable == spec.size - 8


def test_weights_are_prunable_but_not_depthwise_ones() -> None:
    arrays = spec_of(make_net()).arrays
    prunable = [array.name for array in arrays if array.prunable]
    assert prunable == ["0.weight", "4.weight"]


def test_recurrent_weights_are_prunable_and_embeddings_are_not() -> None:
    net = nn.Sequential(nn.Embedding(5, 3), nn.GRU(3, 2))
    prunable = [array.name for array in spec_of(net).arrays if array.prunable]
    assert prunable == ["1.weight_ih_l0", "1.weight_hh_l0"]


def test_frozen_parameters_are_part_of_the_vector_and_not_trainable() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    spec = spec_of(net)
    assert (spec.size, spec.num_trainable) == (12, 6)
    assert spec.arrays[0].name == "1.weight"


def test_a_tied_parameter_counts_once() -> None:
    net = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    net[1].weight = net[0].weight
    assert spec_of(net).size == 12


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_what_is_set_is_what_is_returned(layout: torch.memory_format) -> None:
    net = make_net()
    net.to(memory_format=layout)  # type: ignore[call-overload]  # missing in the stub
    spec = spec_of(net)
    vector = np.arange(spec.size, dtype=np.float32)
    vector.setflags(write=False)
    set_params(net, spec, vector)
    np.testing.assert_array_equal(params_of(net, spec), vector)
    np.testing.assert_array_equal(
        net.state_dict()["0.weight"].numpy(), spec.unflatten(vector)["0.weight"]
    )


def test_the_vector_and_the_network_share_no_memory() -> None:
    net = nn.Linear(2, 1)
    spec = spec_of(net)
    vector = np.zeros(spec.size, np.float32)
    set_params(net, spec, vector)
    vector[:] = 1.0
    params_of(net, spec)[:] = 2.0
    assert not params_of(net, spec).any()


def test_a_vector_of_the_wrong_size_changes_nothing() -> None:
    net = make_net()
    spec = spec_of(net)
    before = params_of(net, spec)
    with pytest.raises(ValueError, match="need shape"):
        set_params(net, spec, np.zeros(spec.size + 1, np.float32))
    np.testing.assert_array_equal(params_of(net, spec), before)


def test_other_precisions_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        spec_of(nn.Linear(2, 2).double())


def test_a_network_without_values_is_an_empty_vector() -> None:
    spec = spec_of(nn.Flatten())
    assert params_of(nn.Flatten(), spec).shape == (0,)
