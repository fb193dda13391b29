"""A task's shapes: a narrower network, or a refusal; never another one."""

from dataclasses import replace

import pytest

from clients.learner import learner_of
from fedge.config.experiment import ClientTask, from_json, to_json
from fedge.errors import ConfigError
from fedge.models.resize import shapes_of
from server.settings import compose_experiment
from server.setup import prepare


def task_with(shapes: dict[str, list[int]]) -> str:
    overrides = ["run=quick", "release=none", "model=mlp", "model.widths=[16]"]
    task = from_json(ClientTask, prepare(compose_experiment(overrides)).task)
    return to_json(replace(task, shapes=shapes))


NARROW = {"1.weight": [6, 64], "1.bias": [6], "4.weight": [10, 6], "4.bias": [10]}


def test_a_task_with_shapes_gives_a_narrower_network() -> None:
    dense = learner_of(task_with({}), None, ())
    learner = learner_of(task_with(NARROW), None, ())
    assert shapes_of(learner.model) == {k: tuple(v) for k, v in NARROW.items()}
    assert learner.spec.size == 6 * 64 + 6 + 10 * 6 + 10 < dense.spec.size
    assert learner.spec.digest != dense.spec.digest


@pytest.mark.parametrize(
    "change",
    [
        {"1.weight": [6000, 64]},
        {"1.weight": [0, 64]},
        {"1.weight": [-1, 64]},
        {"1.weight": [5, 64]},
        {"1.weight": []},
        {"4.weight": [9, 6], "4.bias": [9]},
        {"x": [1]},
    ],
)
def test_shapes_that_a_stranger_made_up_are_refused(
    change: dict[str, list[int]],
) -> None:
    with pytest.raises(ConfigError, match="shapes"):
        learner_of(task_with({**NARROW, **change}), None, ())


def test_shapes_that_are_no_numbers_are_refused() -> None:
    text = task_with(NARROW).replace("[6]", '["6"]')
    with pytest.raises(ConfigError, match="shapes"):
        learner_of(text, None, ())
