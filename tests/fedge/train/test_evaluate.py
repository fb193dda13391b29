"""Evaluation of networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedge.config import DataKind, ModelConfig, ModelName, Task
from fedge.data.dataset import DataInfo, Examples
from fedge.data.shapes import draw_shapes
from fedge.models.build import build_model
from fedge.models.vector import params_of, spec_of
from fedge.runtime.preprocess import Normalization
from fedge.runtime.score import score_outputs
from fedge.train.evaluate import Evaluation, evaluate

IMAGES = DataInfo(
    "x",
    DataKind.image,
    Task.classification,
    (1, 8, 8),
    3,
    tuple("abc"),
    Normalization((8.0,), (6.0,)),
)


def make_examples(num: int) -> Examples:
    rng = np.random.default_rng(0)
    return Examples(rng.integers(0, 17, (num, 1, 8, 8)), rng.integers(0, 3, num))


@pytest.mark.parametrize("name", [ModelName.logistic, ModelName.mobilenet])
def test_evaluation_is_the_judgement_of_the_models_outputs(name: ModelName) -> None:
    config = ModelConfig(name=name, widths=[4], dropout=0.5)
    model, examples = build_model(config, IMAGES, seed=0), make_examples(20)
    params = params_of(model, spec_of(model))
    found = evaluate(model, params, examples, IMAGES, batch_size=7)
    inputs = torch.from_numpy(IMAGES.normalization.apply(examples.features))
    outputs = model.eval()(inputs).detach().numpy()
    expected = score_outputs(outputs, examples.targets, IMAGES.task)
    # Batches of another size may be summed in another order.
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert (found.score, found.num_examples) == (expected.score, 20)


def test_detections_of_all_batches_are_ranked_together() -> None:
    config = ModelConfig(name=ModelName.detector, widths=[4], hidden=4)
    info = replace(IMAGES, task=Task.detection, input_shape=(1, 32, 32))
    model, examples = build_model(config, info, seed=0), draw_shapes(20, seed=0)
    params = params_of(model, spec_of(model))
    small, large = (
        evaluate(model, params, examples, info, batch_size=size) for size in (3, 20)
    )
    assert small.loss == pytest.approx(large.loss, rel=1e-5)
    assert small.score == pytest.approx(large.score, abs=1e-6)


def test_evaluating_changes_no_running_statistics() -> None:
    config = ModelConfig(name=ModelName.mobilenet, widths=[4])
    model = build_model(config, IMAGES, seed=0)
    params = params_of(model, spec_of(model))
    evaluate(model, params, make_examples(20), IMAGES)
    np.testing.assert_array_equal(params_of(model, spec_of(model)), params)


def test_the_given_values_are_judged_not_those_in_the_network() -> None:
    model = build_model(ModelConfig(name=ModelName.logistic), IMAGES, seed=0)
    zeros = np.zeros(spec_of(model).size, np.float32)
    found = evaluate(model, zeros, make_examples(9), IMAGES)
    assert found.loss == pytest.approx(np.log(3))


def test_no_examples_give_an_empty_evaluation() -> None:
    model = build_model(ModelConfig(name=ModelName.logistic), IMAGES, seed=0)
    params = params_of(model, spec_of(model))
    found = evaluate(model, params, make_examples(0), IMAGES)
    assert found == Evaluation(0.0, 0.0, 0)
