"""The work of the engine benchmark: what is promised about its data and models."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clients.learner import learner_of
from server.settings import compose_experiment
from server.setup import prepare
from simulations.benchmarks import workload

OVERRIDES = (
    "data.loader=simulations.benchmarks.workload:load",
    "run.allow=[simulations]",
    "partition=iid",
    "fleet.num_devices=1000",
    "run.cohort=50",
    "release=none",
    "secagg=off",
    "compression=none",
)
SIZES = {"small": 7_850, "medium": 25_450, "cnn": 185_617, "big": 4_902_090}


def values_of(name: str) -> Tensor:
    parameters = workload.make_model(name).parameters()
    return torch.nn.utils.parameters_to_vector(parameters).detach()


@pytest.mark.parametrize("name", workload.MODEL_NAMES)
def test_a_model_has_its_size_and_the_same_weights_each_time(name: str) -> None:
    first, state = values_of(name), torch.get_rng_state()
    assert len(first) == SIZES[name]
    assert torch.equal(first, values_of(name))
    assert torch.equal(state, torch.get_rng_state())


def test_an_unknown_model_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"'huge' is none of small, medium, cnn, big"):
        workload.make_model("huge")


@given(st.integers(0, workload.NUM_CLIENTS - 1))
def test_a_client_has_five_batches_of_its_own_examples(index: int) -> None:
    batches = workload.client_batches(index)
    assert [len(labels) for _, labels in batches] == [10] * 5
    images = torch.cat([images for images, _ in batches])
    pixels, labels = workload.examples()
    own = slice(50 * index, 50 * index + 50)
    assert images.dtype == torch.float32
    assert -1.0 <= images.min() <= images.max() <= 1.0
    np.testing.assert_array_equal(np.rint(images.numpy() * 127.5 + 127.5), pixels[own])
    np.testing.assert_array_equal(torch.cat([y for _, y in batches]), labels[own])


@given(st.integers(0, 2**31))
def test_a_cohort_is_fifty_different_clients_and_always_the_same(round_: int) -> None:
    cohort = workload.draw_cohort(round_)
    assert len(set(cohort)) == 50
    assert 0 <= min(cohort) <= max(cohort) < workload.NUM_CLIENTS
    assert cohort == workload.draw_cohort(round_)
    assert cohort != workload.draw_cohort(round_ + 1)


@pytest.mark.parametrize("name", workload.MODEL_NAMES)
def test_an_experiment_gets_this_model(name: str) -> None:
    builder = f"model.builder=simulations.benchmarks.workload:build_{name}"
    setup = prepare(compose_experiment([*OVERRIDES, builder]))
    np.testing.assert_array_equal(setup.initial_params, values_of(name))
    assert setup.num_devices == workload.NUM_CLIENTS


def test_an_experiment_gets_this_data() -> None:
    setup = prepare(compose_experiment([*OVERRIDES, "model=logistic"]))
    pixels, labels = workload.examples()
    np.testing.assert_array_equal(setup.data.train.features, pixels)
    np.testing.assert_array_equal(setup.data.train.targets, labels)
    assert len(learner_of(setup.task, None, ("simulations",)).examples(7)) == 50


def test_held_out_examples_are_others_with_the_same_patterns() -> None:
    data = workload.load(None)
    assert not (data.test.features == data.train.features[:1000]).all((1, 2, 3)).any()
    means = [
        np.stack([part.features[part.targets == label].mean(0) for label in range(10)])
        for part in (data.train, data.test)
    ]
    # Noise has a deviation of 65; the mean of about 100 test images, one of 6.5.
    assert np.abs(means[0] - means[1]).max() < 5 * 6.5
