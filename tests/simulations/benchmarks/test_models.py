"""The table of models is about models that exist, with settings that fit."""

import pytest

from fedge.config import ModelName
from server.settings import compose_experiment
from simulations.benchmarks.models import measure, settings_of


@pytest.mark.parametrize(
    "name", sorted(set(ModelName) - {ModelName.logistic, ModelName.mlp, "cnn1d"})
)
def test_the_settings_of_each_model_fit_together(name: str) -> None:
    experiment = compose_experiment(settings_of(name, "/data"))
    assert experiment.model.name == name


def test_a_row_has_parameters_sizes_and_scores_of_three_files() -> None:
    whole, half = measure("mlp", "")
    assert (whole[1], half[1], len(whole)) == ("whole", "half", 9)
    params, *sizes = (int(cell.replace(",", "")) for cell in whole[2:6])
    assert params > int(half[2].replace(",", ""))
    assert sizes == sorted(sizes, reverse=True)
    assert all(float(cell) > 0.9 for cell in (*whole[6:], *half[6:]))
