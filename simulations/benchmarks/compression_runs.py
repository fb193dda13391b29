"""Federations for the benchmark of compression, and what is measured of them."""

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.numpy import load_file
from torch import nn

from fedge.arrays import Float32
from fedge.compress.pipeline import Compressed, compress
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

POINT = 0.01
# Else timing decides whether clients are computed together, which changes last bits.
_SETTINGS = ("release=none", "secagg=off", "engine.batching=never")
_REPEATS = 60
_BATCH_SIZES = (1, 32)


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
        return self.setup.model.eval()

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
        drawn = data.train.draw(count, rng).features
        inputs: Float32 = data.info.normalization.apply(drawn)
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
    experiment = compose_experiment([*overrides, *_SETTINGS])
    with tempfile.TemporaryDirectory() as folder:
        simulate_federation(experiment, Path(folder))
        arrays = load_file(Path(folder) / "last.safetensors")
    setup = prepare(experiment)
    names = {spec.name for spec in setup.spec.arrays if spec.trainable}
    shapes = {name: a.shape for name, a in arrays.items() if name in names}
    setup = fitted(setup, shapes)
    return Trained(setup, setup.spec.flatten(arrays))


def pipeline(
    name: str, overrides: Sequence[str], small: Sequence[str], seeds: Sequence[int]
) -> Figures:
    """Return ratio, accuracy and speed of a small pipeline against the dense one.

    Args:
        name: what the figures' names begin with.
        overrides: settings of both federations.
        small: settings of the one whose model is made small.
        seeds: one run of both for each; figures are means.
    """
    runs = [_pipeline(overrides, small, seed) for seed in seeds]
    mean = {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}
    is_good = mean["dense_accuracy"] - mean["accuracy"] <= POINT
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
        "dense_kb": len(dense_file) / 1e3,
        "dense_accuracy": dense.accuracy(dense_file),
        "accuracy": light.accuracy(published.model),
        "ratio": len(dense_file) / len(published.artifact),
        "sent_kb": len(published.artifact) / 1e3,
        "publish_seconds": seconds,
        "same_bytes_twice": float(_digest(published) == _digest(again)),
        **_speedups(dense, dense_file, published.model),
    }


def _publish(result: Trained, template: OnnxTemplate) -> Compressed:
    """Do what a release does with the weights: fill, build, measure, choose."""
    config = result.setup.experiment.compression
    return compress(
        template.fill(result.network()),
        result.inputs(config.calibration_examples),
        config=config,
        evaluate=result.accuracy,
        latency=lambda models: [0.0] * len(models),
    )


def _digest(published: Compressed) -> str:
    return hashlib.sha256(published.artifact).hexdigest()


def _speedups(dense: Trained, dense_file: bytes, small: bytes) -> Figures:
    """Return how many times faster the small file is than the dense network.

    Against its file in ONNX Runtime, and against PyTorch eager; one thread each, in
    turns.
    """
    info, raw = dense.setup.data.info, dense.setup.data.test.features
    network, threads = dense.network(), torch.get_num_threads()
    runtime, light = (
        OnnxPredictor(model, info.normalization) for model in (dense_file, small)
    )
    torch.set_num_threads(1)
    figures: Figures = {}
    for size in _BATCH_SIZES:
        batch = raw[:size]
        eager = torch.from_numpy(info.normalization.apply(batch))
        seconds = _in_turns(
            {
                "runtime": lambda batch=batch: runtime.predict(batch),  # type: ignore[misc]
                "light": lambda batch=batch: light.predict(batch),  # type: ignore[misc]
                "eager": lambda eager=eager: network(eager),  # type: ignore[misc]
            }
        )
        figures[f"speedup_b{size}"] = seconds["runtime"] / seconds["light"]
        figures[f"speedup_vs_eager_b{size}"] = seconds["eager"] / seconds["light"]
    torch.set_num_threads(threads)
    return figures


@torch.inference_mode()
def _in_turns(calls: Mapping[str, Callable[[], object]]) -> Mapping[str, float]:
    """Return the median seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_REPEATS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}
