"""Reference models without a state of their own: trained together as if alone."""

import numpy as np
import pytest

from fedge.config import DataKind, ModelConfig, ModelName, Task, TrainConfig
from fedge.data.dataset import DataInfo, Examples
from fedge.data.shapes import draw_shapes
from fedge.models.build import build_model
from fedge.models.vector import params_of, spec_of
from fedge.runtime.preprocess import Normalization
from fedge.strategy import LocalSettings
from fedge.train.stacked import can_stack, train_stacked
from fedge.train.trainer import train_locally

IMAGES = Normalization((128.0,), (64.0,))
OBJECTS = DataInfo(
    "shapes", DataKind.image, Task.detection, (1, 32, 32), 3, tuple("abc"), IMAGES
)
CLASSES = DataInfo(
    "classes", DataKind.image, Task.classification, (1, 32, 32), 3, tuple("abc"), IMAGES
)
TEXT = DataInfo(
    "text", DataKind.text, Task.next_token, (6,), 4, tuple("abcd"), Normalization()
)
COUNTS = (3, 8, 5)
# One step moves values by about 0.01; float32 has 7 digits, a few steps lose some.
TOLERANCE = 2e-6


def examples_for(info: DataInfo) -> Examples:
    count, rng = sum(COUNTS), np.random.default_rng(0)
    drawn = draw_shapes(count, seed=0)
    if info is OBJECTS:
        return drawn
    if info is CLASSES:
        return Examples(drawn.features, rng.integers(0, 3, count))
    tokens = rng.integers(0, 4, (count, 7))
    return Examples(tokens[:, :-1], tokens[:, 1:])


@pytest.mark.parametrize(
    ("name", "info"),
    [
        (ModelName.detector, OBJECTS),
        (ModelName.squeezenet, CLASSES),
        (ModelName.transformer, TEXT),
    ],
)
def test_together_is_alone(name: ModelName, info: DataInfo) -> None:
    config = TrainConfig(batch_size=4, epochs=2, momentum=0.9)
    model = build_model(ModelConfig(name=name, widths=[6], hidden=8), info, seed=0)
    assert can_stack(model, config)
    examples, params = examples_for(info), params_of(model, spec_of(model))
    parts = np.split(np.arange(sum(COUNTS)), np.cumsum(COUNTS)[:-1])
    together = train_stacked(
        model,
        params,
        examples,
        parts,
        info,
        config=config,
        local=LocalSettings(),
        learning_rate=0.01,
        mask=None,
        rngs=[np.random.default_rng(client) for client in range(len(parts))],
    )
    for client, part in enumerate(parts):
        alone = train_locally(
            model,
            params,
            examples.take(part),
            info,
            config,
            local=LocalSettings(),
            learning_rate=0.01,
            mask=None,
            rng=np.random.default_rng(client),
        )
        found = together.of(client)
        np.testing.assert_allclose(found.delta, alone.delta, rtol=0, atol=TOLERANCE)
        assert np.abs(alone.delta).max() > 100 * TOLERANCE
        assert found.loss == pytest.approx(alone.loss, rel=1e-5)
