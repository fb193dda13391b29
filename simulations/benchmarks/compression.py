"""How small models get, what that costs, and how little changes between releases.

    python -m simulations.benchmarks.compression [--json] [--quick] [--data-root FOLDER]

Each pipeline is a whole federation: dense (float32, nothing removed) and small
(`compression=small`: channels and weights go while the model trains, then int8 or a
codebook). Ratios are bytes of the dense float32 ONNX file over bytes that are sent;
speed-ups are in ONNX Runtime, the small model against the dense one, measured in turns
on one thread. Accuracies are of the files, on held-out data.

Deltas: an int8 CNN after consecutive rounds, on the scales of the first; sizes as a
share of the float32 ONNX file.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from torch import nn

from fedge.arrays import Float32
from fedge.compress.delta import make_delta
from fedge.compress.pipeline import Compressed, compress
from fedge.compress.quantize import quantize_int8
from fedge.compress.requantize import requantize
from fedge.export.onnx import OnnxTemplate, export_onnx
from fedge.models.vector import set_params
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.score import score_outputs
from fedge.seeding import Purpose, generator
from server.narrow import fitted
from server.settings import compose_experiment
from server.setup import Setup, prepare
from simulations.federation import simulate_federation

Figures = dict[str, float]

_SECAGG_OFF = ("release=none", "secagg=off")
# Half a million parameters and five million multiplications, for 8 x 8 pixels.
_DIGITS = (
    "model=cnn", "model.widths=[32,64,128,128]", "model.pool_every=2",
    "model.hidden=512", "run.rounds=40",
)  # fmt: skip
_FASHION = (
    "data=fashion_mnist", "model=cnn_fashion", "fleet=hundred", "run=long",
    "train.batch_size=32", "train.learning_rate=0.03", "train.epochs=2",
)  # fmt: skip
# A harder data set needs more channels to stay within a point.
_SMALL = ("compression=small",)
_SMALL_FASHION = ("compression=small", "compression.channel_sparsity=0.6")
_POINT = 0.01
_REPEATS = 60
_DELTA_ROUNDS = (12, 13, 14, 15)
_DEAD_ZONE, _HEADROOM = 3, 0.15


@dataclass(frozen=True, slots=True)
class Trained:
    """A federation's result.

    Attributes:
        setup: for its network, which may have become narrower.
        params: the model, float32, shape (d,).
    """

    setup: Setup
    params: Float32

    def network(self) -> nn.Module:
        """Return the network with the model's values."""
        set_params(self.setup.model, self.setup.spec, self.params)
        return self.setup.model

    def onnx(self) -> bytes:
        """Return the float32 ONNX file."""
        return export_onnx(self.network(), self.inputs(2))

    def template(self) -> OnnxTemplate:
        """Return the architecture in ONNX."""
        return OnnxTemplate(self.setup.model, self.inputs(2))

    def inputs(self, count: int) -> Float32:
        """Return some training examples as the model takes them."""
        data = self.setup.data
        rng = generator(0, Purpose.MODEL, 1)
        chosen = rng.choice(len(data.train), min(count, len(data.train)), replace=False)
        inputs: Float32 = data.info.normalization.apply(data.train.features[chosen])
        return inputs

    def accuracy(self, model: bytes) -> float:
        """Return the score of an ONNX file on held-out data."""
        data = self.setup.data
        outputs = OnnxPredictor(model, data.info.normalization).predict(
            data.test.features
        )
        return score_outputs(outputs, data.test.targets, data.info.task).score


def trained(*overrides: str) -> Trained:
    """Run a federation in a folder of its own."""
    experiment = compose_experiment([*overrides, *_SECAGG_OFF])
    with tempfile.TemporaryDirectory() as folder:
        simulate_federation(experiment, Path(folder))
        arrays = load_file(Path(folder) / "last.safetensors")
    setup = prepare(experiment)
    names = {spec.name for spec in setup.spec.arrays if spec.trainable}
    shapes = {name: a.shape for name, a in arrays.items() if name in names}
    setup = fitted(setup, shapes)
    return Trained(setup, setup.spec.flatten(arrays))


def pipelines(
    name: str,
    overrides: Sequence[str],
    seeds: Sequence[int],
    small: Sequence[str] = _SMALL,
) -> Figures:
    """Return ratio, accuracy and speed of the small pipeline against the dense one."""
    runs = [_pipeline(overrides, small, seed) for seed in seeds]
    mean = {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}
    is_good = mean["dense_accuracy"] - mean["accuracy"] <= _POINT
    return {
        **{f"{name}_{key}": value for key, value in mean.items()},
        f"{name}_ratio_within_1pt": mean["ratio"] if is_good else 0.0,
    }


def _pipeline(overrides: Sequence[str], small: Sequence[str], seed: int) -> Figures:
    dense = trained(*overrides, "compression=none", f"run.seed={seed}")
    light = trained(*overrides, *small, f"run.seed={seed}")
    dense_file = dense.onnx()
    template = light.template()  # once for an architecture
    started = time.perf_counter()
    published = _publish(light, template)
    seconds = time.perf_counter() - started
    again = _publish(light, light.template())
    return {
        "dense_accuracy": dense.accuracy(dense_file),
        "accuracy": light.accuracy(published.model),
        "ratio": len(dense_file) / len(published.artifact),
        "sent_kb": len(published.artifact) / 1e3,
        "publish_seconds": seconds,
        "same_bytes_twice": float(_digest(published) == _digest(again)),
        **_speedups(light, {"dense": dense_file, "small": published.model}),
    }


def _publish(result: Trained, template: OnnxTemplate) -> Compressed:
    """Do what a release does with the weights: fill, build, measure, choose."""
    config = replace(result.setup.experiment.compression, max_accuracy_drop=_POINT)
    return compress(
        template.fill(result.network()),
        result.inputs(config.calibration_examples),
        config=config,
        evaluate=result.accuracy,
        latency=lambda models: [0.0] * len(models),
    )


def _digest(published: Compressed) -> str:
    return hashlib.sha256(published.artifact).hexdigest()


def _speedups(result: Trained, models: Mapping[str, bytes]) -> Figures:
    """Return how many times faster the small file is than the dense one."""
    info, raw = result.setup.data.info, result.setup.data.test.features
    figures: Figures = {}
    for size in (1, 32):
        seconds: dict[str, list[float]] = {name: [] for name in models}
        predictors = {
            name: OnnxPredictor(model, info.normalization)
            for name, model in models.items()
        }
        for _ in range(_REPEATS):
            for name, predictor in predictors.items():
                started = time.perf_counter()
                predictor.predict(raw[:size])
                seconds[name].append(time.perf_counter() - started)
        dense, small = (statistics.median(seconds[n]) for n in ("dense", "small"))
        figures[f"speedup_b{size}"] = dense / small
    return figures


def deltas() -> Figures:
    """Return what consecutive rounds' int8 models cost as deltas."""
    chain = [
        trained("model=cnn", f"run.rounds={rounds}", "compression=none")
        for rounds in _DELTA_ROUNDS
    ]
    files = [result.onnx() for result in chain]
    first = quantize_int8(files[0], chain[0].inputs(256))
    start = requantize(first, files[0], headroom=_HEADROOM)
    figures: Figures = {}
    for name, zone in (("delta_fraction", 0), ("delta_fraction_dead_zone", _DEAD_ZONE)):
        base, sizes, drops = start, [], []
        for result, file in zip(chain[1:], files[1:], strict=True):
            new = requantize(base, file, dead_zone=zone)
            sizes.append(len(make_delta(base, new, level=19)) / len(file))
            drops.append(result.accuracy(file) - result.accuracy(new))
            base = new
        figures[name] = statistics.fmean(sizes)
        figures[f"{name}_accuracy_drop"] = float(np.max(drops))
    return figures


def measure(*, quick: bool, data_root: str) -> Figures:
    """Return all figures."""
    seeds = (0,) if quick else (0, 1, 2)
    figures = pipelines("digits_cnn", _DIGITS, seeds)
    figures["publish_seconds"] = figures["digits_cnn_publish_seconds"]
    figures |= deltas()
    if data_root and not quick:
        fashion = (*_FASHION, f"data.root={data_root}")
        figures |= pipelines("fashion_cnn", fashion, (0,), _SMALL_FASHION)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, digits only")
    parser.add_argument(
        "--data-root", default="", help="folder with fashion-mnist/ (about 25 minutes)"
    )
    options = parser.parse_args(arguments)
    figures = measure(quick=options.quick, data_root=options.data_root)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>34}  {value:.4g}")


if __name__ == "__main__":
    main()
