"""Each network from training to the runtime: learn, cut, resize, quantize, run.

On real digits, on drawn shapes, and on texts whose next token a network can infer. The
networks are small and trained for seconds, so the numbers are only well above chance.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from fedge.arrays import Float32
from fedge.compress.codebook import store_codebook
from fedge.compress.pack import pack
from fedge.compress.quantize import quantize_int8
from fedge.compress.structured import narrowed
from fedge.config import (
    DataKind,
    ModelConfig,
    ModelName,
    OptimizerName,
    Task,
    TrainConfig,
)
from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
from fedge.data.digits import load_digits
from fedge.data.shapes import load_shapes
from fedge.export.onnx import export_onnx
from fedge.models.build import build_model
from fedge.models.resize import resize, shapes_of
from fedge.models.vector import params_of, set_params, spec_of
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.preprocess import Normalization
from fedge.runtime.score import score_outputs
from fedge.strategy import LocalSettings
from fedge.train.evaluate import evaluate
from fedge.train.trainer import train_locally

NUM_TOKENS, TIME = 11, 12


# A codebook has 16 values for all weights of a matrix, which costs a network that is so
# small and so little trained a few points.
MOST_LOST_BY_INT8, MOST_LOST_BY_CODEBOOK = 0.03, 0.1


@dataclass(frozen=True)
class Case:
    """A network and what it must reach, well above chance.

    Attributes:
        name, widths, hidden: of the network.
        steps: of training before the cut; after it, half as many.
        least: score in the runtime after all that.
        left: less than this share of the parameters is left with half the channels.
    """

    name: ModelName
    widths: tuple[int, ...]
    hidden: int
    steps: int
    least: float
    left: float = 0.5

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(name=self.name, widths=[*self.widths], hidden=self.hidden)


CASES = [
    Case(ModelName.mobilenet_v2, (16, 24, 24), 48, 120, 0.7),
    Case(ModelName.mobilenet_v3, (16, 24, 24), 48, 120, 0.7),
    Case(ModelName.squeezenet, (32, 64, 64), 1, 320, 0.7),
    Case(ModelName.detector, (16, 24), 32, 240, 0.5),
    Case(ModelName.gru, (48,), 16, 120, 0.8),
    Case(ModelName.lstm, (48,), 16, 160, 0.8),
    Case(ModelName.transformer, (64, 64), 32, 160, 0.8, left=0.8),
]


def texts() -> FederatedData:
    """Texts in which each token is the one before it plus a number of the text's own.

    So it takes two tokens, and not only the last one, to know the next.
    """
    rng = np.random.default_rng(0)
    start, step = rng.integers(0, NUM_TOKENS, 600), rng.integers(1, 4, 600)
    whole = (start[:, None] + step[:, None] * np.arange(TIME + 1)) % NUM_TOKENS
    info = DataInfo(
        "steps", DataKind.text, Task.next_token, (TIME,), NUM_TOKENS,
        tuple("abcdefghijk"), Normalization(),
    )  # fmt: skip
    examples = Examples(whole[:, :-1], whole[:, 1:])
    places = np.arange(len(whole))
    return FederatedData(
        info, examples.take(places[:500]), examples.take(places[500:]), NOBODY
    )


def data_for(name: ModelName) -> FederatedData:
    if name in (ModelName.gru, ModelName.lstm, ModelName.transformer):
        return texts()
    return load_shapes() if name is ModelName.detector else load_digits()


def trained(model: nn.Module, data: FederatedData, steps: int) -> None:
    """Train a network in place."""
    spec = spec_of(model)
    params = params_of(model, spec)
    config = TrainConfig(optimizer=OptimizerName.adam, steps=steps, batch_size=32)
    update = train_locally(
        model,
        params,
        data.train,
        data.info,
        config,
        local=LocalSettings(),
        learning_rate=0.005,
        mask=None,
        rng=np.random.default_rng(0),
    )
    set_params(model, spec, params + update.delta)


def run(model: bytes, data: FederatedData) -> tuple[Float32, float]:
    """Return outputs and score of a file in the devices' runtime."""
    outputs = OnnxPredictor(model, data.info.normalization).predict(data.test.features)
    return outputs, score_outputs(outputs, data.test.targets, data.info.task).score


def check_resize(smaller: nn.Module, case: Case, data: FederatedData) -> None:
    """Check that shapes and values are enough to have the same network elsewhere."""
    rebuilt = build_model(case.config, data.info, seed=1)
    resize(rebuilt, shapes_of(smaller), data.info)
    spec = spec_of(smaller)
    set_params(rebuilt, spec, params_of(smaller, spec))
    inputs = torch.from_numpy(data.info.normalization.apply(data.test.features[:16]))
    with torch.no_grad():
        expected, found = smaller.eval()(inputs), rebuilt.eval()(inputs)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_a_network_learns_shrinks_and_runs(case: Case) -> None:
    data = data_for(case.name)
    inputs = data.info.normalization.apply(data.train.features[:128])
    model = build_model(case.config, data.info, seed=0)
    trained(model, data, case.steps)
    smaller = narrowed(model, inputs, share=0.5)
    before, after = (spec_of(net).num_trainable for net in (model, smaller))
    assert after < case.left * before
    check_resize(smaller, case, data)

    trained(smaller, data, case.steps // 2)
    exported = export_onnx(smaller, inputs)
    spec = spec_of(smaller)
    in_torch = evaluate(smaller, params_of(smaller, spec), data.test, data.info)
    outputs, score = run(exported, data)
    assert score == pytest.approx(in_torch.score, abs=0.01)
    assert score > case.least
    num_bytes = len(pack(exported, level=19))
    for file, most_lost in (
        (quantize_int8(exported, inputs), MOST_LOST_BY_INT8),
        (store_codebook(exported), MOST_LOST_BY_CODEBOOK),
    ):
        found, shipped_score = run(file, data)
        assert found.shape == outputs.shape
        assert shipped_score > score - most_lost
        assert len(pack(file, level=19)) < 0.7 * num_bytes
