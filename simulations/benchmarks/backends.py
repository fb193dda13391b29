"""What the backends make of the same networks: size, accuracy, speed, export time.

    python -m simulations.benchmarks.backends [--json] [--only NAME ...]

Four networks are trained on scikit-learn's digits for a few epochs: two that convolve,
one that is recurrent and one with attention (an image as a sequence of eight rows).
Each is exported to every backend that is installed (onnx and tensorrt always are; see
`make test-backends` for the others), in each of its number formats.

Latencies are of one prediction on one thread: the shortest of 300, because whatever
else the machine does only adds to them. The files of one network are measured in turns,
in blocks of 20; read them as ratios to `onnx float32` of the same network.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn

from fedge.arrays import AnyArray, Float32, Int64
from fedge.backends import BACKENDS, exporter_of
from fedge.config import DataConfig, ModelConfig, ModelName
from fedge.data.load import load
from fedge.errors import CompressionError
from fedge.export.exporter import Exporter, Precision, export_checked
from fedge.models.build import build_model
from fedge.runtime.predictor import Predictor
from fedge.runtime.preprocess import Normalization

_PLAIN = Normalization((0.0,), (1.0,))
_NUM_TRAIN, _EPOCHS, _BATCH = 1344, 8, 64
_CALIBRATION, _BLOCKS, _REPEATS = 128, 15, 20


class Recurrent(nn.Module):
    """Two GRU layers over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.GRU(8, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return logits, (n, 10), of float32 (n, 8, 8)."""
        states, _ = self.layers(rows)
        logits: torch.Tensor = self.head(states[:, -1])
        return logits


class Attention(nn.Module):
    """Three encoder layers over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, 96)
        layer = nn.TransformerEncoderLayer(
            96, 4, 384, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(96, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return logits, (n, 10), of float32 (n, 8, 8)."""
        logits: torch.Tensor = self.head(self.layers(self.embedding(rows)).mean(1))
        return logits


def _reference(name: ModelName, widths: list[int], hidden: int) -> nn.Module:
    info = load(DataConfig()).info
    config = ModelConfig(name=name, widths=widths, hidden=hidden)
    return build_model(config, info, seed=0)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cnn": lambda: _reference(ModelName.cnn, [32, 64, 128, 128], 512),
    "mobilenet": lambda: _reference(ModelName.mobilenet, [32, 64, 128, 256], 128),
    "gru": Recurrent,
    "attention": Attention,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One file.

    Attributes:
        network, backend, precision: what it is.
        kb: its size, 1000 bytes.
        accuracy: on held-out images.
        speedup: of one prediction, against ONNX Runtime in float32.
        max_error: against the network.
        export_seconds: with the comparison.
    """

    network: str
    backend: str
    precision: str
    kb: float
    accuracy: float
    speedup: float
    max_error: float
    export_seconds: float


@dataclass(frozen=True, slots=True)
class _File:
    backend: str
    precision: str
    num_bytes: int
    max_error: float
    export_seconds: float
    predictor: Predictor


def rows_of(name: str) -> list[Row]:
    """Train a network, export it everywhere, and measure the files."""
    images, labels = _digits(name)
    network = _trained(NETWORKS[name], images, labels)
    files = [
        file
        for exporter in _installed()
        for precision in exporter.precisions
        for file in _exported(exporter, network, images[:_CALIBRATION], precision)
    ]
    times = _latencies([file.predictor for file in files], images[:1])
    tests, answers = images[_NUM_TRAIN:], labels[_NUM_TRAIN:]
    return [
        Row(
            network=name,
            backend=file.backend,
            precision=file.precision,
            kb=file.num_bytes / 1e3,
            accuracy=float((file.predictor.predict(tests).argmax(1) == answers).mean()),
            speedup=times[0] / latency,
            max_error=file.max_error,
            export_seconds=file.export_seconds,
        )
        for file, latency in zip(files, times, strict=True)
    ]


def _exported(
    exporter: Exporter, network: nn.Module, inputs: AnyArray, precision: Precision
) -> Iterator[_File]:
    """Yield the file, or say why there is none."""
    started = time.perf_counter()
    try:
        made = export_checked(exporter, network, inputs, precision=precision)
    except CompressionError as exc:
        print(f"refused: {exc}")
        return
    yield _File(
        backend=exporter.name,
        precision=precision,
        num_bytes=len(made.model),
        max_error=made.parity.max_abs_error,
        export_seconds=time.perf_counter() - started,
        predictor=exporter.open(made.model, _PLAIN),
    )


def _digits(name: str) -> tuple[Float32, Int64]:
    data = load(DataConfig())
    parts = (data.train, data.test)
    raw = np.concatenate([part.features for part in parts])
    images = data.info.normalization.apply(raw)
    labels: Int64 = np.concatenate([part.targets for part in parts])
    flat = isinstance(NETWORKS[name], type)  # ours take rows, not images
    return (images[:, 0] if flat else images), labels


def _trained(
    make: Callable[[], nn.Module], images: Float32, labels: Int64
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = make().train()
    inputs, targets = torch.from_numpy(images.copy()), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    rng = np.random.default_rng(0)
    for _ in range(_EPOCHS):
        for batch in torch.from_numpy(rng.permutation(_NUM_TRAIN)).reshape(-1, _BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(inputs[batch]), targets[batch])
            torch.autograd.backward(loss)
            optimizer.step()
    return network.eval()


def _installed() -> list[Exporter]:
    packages = {"litert": "litert_torch"}
    return [
        exporter_of(name)
        for name in BACKENDS
        if name in ("onnx", "tensorrt") or find_spec(packages.get(name, name))
    ]


def _latencies(predictors: Sequence[Predictor], one: AnyArray) -> list[float]:
    """Return the seconds of one prediction each, in blocks that take turns."""
    best = [float("inf")] * len(predictors)
    for _ in range(_BLOCKS):
        for index, predictor in enumerate(predictors):
            for _ in range(_REPEATS):
                started = time.perf_counter()
                predictor.predict(one)
                best[index] = min(best[index], time.perf_counter() - started)
    return best


def _one_thread() -> None:
    """Let torch and ExecuTorch compute on one thread, as the others do here."""
    torch.set_num_threads(1)
    if find_spec("executorch"):
        from executorch.extension.pybindings import portable_lib

        # Unsafe once a program is loaded, which goes on with the threads it found.
        portable_lib._unsafe_reset_threadpool(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    options = parser.parse_args(arguments)
    _one_thread()
    rows = [row for name in options.only for row in rows_of(name)]
    if options.json:
        plain: list[dict[str, Any]] = [asdict(row) for row in rows]
        print(json.dumps({"rows": plain}))
        return
    print("network    backend    precision        kB  accuracy  speedup  error  export")
    for row in rows:
        print(
            f"{row.network:10} {row.backend:10} {row.precision:13} {row.kb:7.0f}"
            f"  {row.accuracy:8.4f}  {row.speedup:7.2f}  {row.max_error:5.2g}"
            f"  {row.export_seconds:4.1f} s"
        )


if __name__ == "__main__":
    main()
