"""Every reference model, whole and with half of its channels: bytes and scores.

    python -m simulations.benchmarks.models [--data-root FOLDER] [NAME ...]

Each is trained in one place (no federation) with the settings of conf/model, then half
of its channels go and it is trained half as long again. Bytes are of the float32 ONNX
file, and of the int8 and codebook files as they are packed and sent; scores are of
these three files on held-out data, in ONNX Runtime. Images: digits; the detector:
shapes; texts: windows of Shakespeare, which need FOLDER/tiny-shakespeare.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from fedge.arrays import Float32
from fedge.compress.codebook import store_codebook
from fedge.compress.pack import pack
from fedge.compress.quantize import quantize_int8
from fedge.compress.structured import narrowed
from fedge.config import OptimizerName, TrainConfig
from fedge.data.dataset import FederatedData
from fedge.export.onnx import export_onnx
from fedge.models.vector import params_of, set_params, spec_of
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.score import score_outputs
from fedge.strategy import LocalSettings
from fedge.train.trainer import train_locally
from server.settings import compose_experiment
from server.setup import prepare

_IMAGES = ("cnn", "mobilenet", "mobilenet_v2", "mobilenet_v3", "squeezenet")
_TEXTS = ("gru", "lstm", "transformer")
_STEPS = {"detector": 900, **dict.fromkeys(_TEXTS, 600)}
_DEFAULT_STEPS = 400
_TEST_TEXTS = 500
_CALIBRATION = 256


def settings_of(name: str, data_root: str) -> list[str]:
    """Return what has to be set to train this model."""
    settings = [f"model={name}", "partition=iid"]
    if name == "detector":
        return [*settings, "data=shapes"]
    if name in _TEXTS:
        return [*settings, "data=shakespeare", f"data.root={data_root}"]
    return settings


def measure(name: str, data_root: str) -> list[list[str]]:
    """Return two rows for the table: the whole model, and the one that was cut."""
    setup = prepare(compose_experiment(settings_of(name, data_root)))
    data, model = setup.data, setup.model
    if name in _TEXTS:
        data = replace(data, test=data.test.take(np.arange(_TEST_TEXTS)))
    steps = _STEPS.get(name, _DEFAULT_STEPS)
    train(model, data, steps)
    smaller = narrowed(model, inputs_of(data), share=0.5)
    train(smaller, data, steps // 2)
    return [
        [name, "whole", *figures(model, data)],
        [name, "half", *figures(smaller, data)],
    ]


def train(model: nn.Module, data: FederatedData, steps: int) -> None:
    """Train a network in place, with Adam."""
    spec = spec_of(model)
    params = params_of(model, spec)
    update = train_locally(
        model,
        params,
        data.train,
        data.info,
        TrainConfig(optimizer=OptimizerName.adam, steps=steps, batch_size=32),
        local=LocalSettings(),
        learning_rate=0.005,
        mask=None,
        rng=np.random.default_rng(0),
    )
    set_params(model, spec, params + update.delta)


def inputs_of(data: FederatedData) -> Float32:
    """Return some training examples as a network takes them."""
    inputs: Float32 = data.info.normalization.apply(data.train.features[:_CALIBRATION])
    return inputs


def figures(model: nn.Module, data: FederatedData) -> list[str]:
    """Return parameters, bytes of the three files, and their scores."""
    inputs = inputs_of(data)
    whole = export_onnx(model, inputs)
    short = quantize_int8(whole, inputs), store_codebook(whole)
    num_bytes = [len(whole), *(len(pack(file, level=19)) for file in short)]
    scores = [score(file, data) for file in (whole, *short)]
    numbers = [spec_of(model).num_trainable, *num_bytes]
    return [*(f"{number:,}" for number in numbers), *(f"{s:.4f}" for s in scores)]


def score(model: bytes, data: FederatedData) -> float:
    """Return the score of an ONNX file on held-out data."""
    outputs = OnnxPredictor(model, data.info.normalization).predict(data.test.features)
    return score_outputs(outputs, data.test.targets, data.info.task).score


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data-root", default="", help="folder of the texts")
    parser.add_argument(
        "names", nargs="*", help="models; all that there is data for if none"
    )
    options = parser.parse_args(arguments)
    texts = _TEXTS if options.data_root else ()
    print("model|channels|params|fp32 B|int8 B|codebook B|fp32|int8|codebook")
    for name in options.names or (*_IMAGES, "detector", *texts):
        for row in measure(name, options.data_root):
            print("|".join(row), flush=True)


if __name__ == "__main__":
    main()
