import numpy as np
import pytest
import torch
from torch import nn

from fedge.arrays import Bool, Float32
from fedge.config import Quantization, Task
from fedge.models.vector import params_of, set_params, spec_of
from fedge.train.distill import distill, mean_outputs

INPUTS = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
HELD_OUT = np.random.default_rng(1).normal(size=(300, 12)).astype(np.float32)


def net(width: int, seed: int, outputs: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, outputs)
    )


def learn(
    student: nn.Module,
    wanted: Float32,
    *,
    task: Task = Task.classification,
    epochs: int = 30,
    mask: Bool | None = None,
    form: Quantization = Quantization.none,
) -> Float32:
    return distill(
        student, params_of(student, spec_of(student)), wanted, INPUTS, task,
        epochs=epochs, learning_rate=0.01, rng=np.random.default_rng(2), mask=mask,
        weight_form=form,
    )  # fmt: skip


def agreement(student: nn.Module, params: Float32, wanted: Float32) -> float:
    set_params(student, spec_of(student), params)
    own = mean_outputs([student], HELD_OUT)
    return float(np.mean(own.argmax(axis=1) == wanted.argmax(axis=1)))


def test_a_smaller_network_learns_to_answer_as_an_ensemble_does() -> None:
    teachers = [net(64, seed) for seed in (1, 2, 3)]
    student = net(24, seed=4)
    before = params_of(student, spec_of(student))
    wanted = mean_outputs(teachers, HELD_OUT)
    after = learn(student, mean_outputs(teachers, INPUTS))
    assert agreement(student, before, wanted) < 0.5
    assert agreement(student, after, wanted) > 0.85


def test_numbers_are_learned_by_squared_error() -> None:
    teacher, student = net(32, 1, outputs=1), net(16, 2, outputs=1)
    after = learn(student, mean_outputs([teacher], INPUTS), task=Task.regression)
    set_params(student, spec_of(student), after)
    wanted = mean_outputs([teacher], HELD_OUT)
    error = np.square(mean_outputs([student], HELD_OUT) - wanted).mean()
    assert error < 0.1 * wanted.var()


def test_the_same_arguments_give_the_same_bytes_and_pruned_values_stay_zero() -> None:
    wanted = mean_outputs([net(64, 1)], INPUTS)
    spec = spec_of(net(24, 4))
    mask = np.random.default_rng(3).random(spec.size) < 0.5
    one, two = (learn(net(24, 4), wanted, mask=mask, epochs=2) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert not one[~mask].any()
    assert one[mask].any()


def test_it_learns_for_the_shipped_form() -> None:
    wanted = mean_outputs([net(64, 1)], INPUTS)
    plain, formed = (
        learn(net(24, 4), wanted, epochs=3, form=form)
        for form in (Quantization.none, Quantization.int4)
    )
    assert plain.tobytes() != formed.tobytes()


def test_running_statistics_stay_as_they_were() -> None:
    student = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    start = params_of(student, spec_of(student))
    after = learn(student, mean_outputs([net(8, 1)], INPUTS), epochs=1)
    trainable = spec_of(student).num_trainable
    assert np.array_equal(after[trainable:], start[trainable:])
    assert not np.array_equal(after[:trainable], start[:trainable])


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one teacher"):
        mean_outputs([], INPUTS)
    with pytest.raises(ValueError, match="300 inputs but 2 outputs"):
        learn(net(8, 1), np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="distilled model"):
        learn(net(8, 1), np.full((300, 4), np.nan, np.float32))
