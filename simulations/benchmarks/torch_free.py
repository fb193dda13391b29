"""What a device saves that trains without PyTorch, and what it pays.

    python -m simulations.benchmarks.torch_free [--json] [--quick]

Memory and time: the same message, data and model are given to a device with PyTorch
and to one without, each alone in a process (`torch_free_client`); the peaks are the
largest resident sizes of these processes, and one thread computes. Size: all files of
the packages that `fedge[device]` and `fedge[device,train]` need, as they are installed
here. Accuracy: federations of only the one and only the other kind of device, on
held-out data, mean of the seeds.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fedge.flower.wire import EvaluateRequest, TrainRequest
from server.graphs import offering
from server.settings import compose_experiment
from server.setup import prepare
from simulations.benchmarks.torch_free_client import (
    LOADER,
    MESSAGES,
    save_data,
    write_message,
)
from simulations.federation import simulate_federation

Figures = dict[str, float]

_PLAIN = ("secagg=off", "release=none", "compression=none", "fleet=small")
_MODELS = {
    "cnn": ("model=cnn", "run.rounds=15"),
    "mlp": ("model=mlp", "run.rounds=15"),
    "mobilenet": ("model=mobilenet", "model.widths=[16,32]", "run.rounds=40"),
}
_BACKENDS = ("torch", "onnx")
_REPEATS = 20


def measure(*, quick: bool) -> Figures:
    """Return all figures."""
    figures = install_sizes()
    for model in ("cnn",) if quick else _MODELS:
        figures |= {f"{model}_{k}": v for k, v in clients(model).items()}
    for model in _MODELS:
        figures |= accuracies(model, seeds=(0,) if quick else (0, 1, 2))
    figures["peak_memory_ratio"] = figures["cnn_peak_memory_ratio"]
    figures["onnx_train_vs_torch_speed"] = figures["cnn_onnx_train_vs_torch_speed"]
    return figures


def clients(model: str) -> Figures:
    """Return memory and time of a round on each kind of device."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_data(folder)
        num_steps = _write_messages(model, folder)
        found = {backend: _run_client(folder, backend) for backend in _BACKENDS}
    torch, onnx = (found[backend] for backend in _BACKENDS)
    step_ms = {b: 1e3 * found[b]["train_seconds"] / num_steps for b in _BACKENDS}
    return {
        **{f"{backend}_peak_mb": found[backend]["peak_mb"] for backend in found},
        **{f"{backend}_step_ms": step_ms[backend] for backend in found},
        **{f"{b}_first_round_seconds": found[b]["first_seconds"] for b in found},
        "peak_memory_ratio": onnx["peak_mb"] / torch["peak_mb"],
        "onnx_train_vs_torch_speed": step_ms["torch"] / step_ms["onnx"],
        "update_length_ratio": onnx["delta_norm"] / torch["delta_norm"],
    }


def _write_messages(model: str, folder: Path) -> int:
    """Write a round's messages to one of 20 devices; return its number of steps."""
    experiment = compose_experiment(
        [
            *_PLAIN,
            *_MODELS[model],
            "train.backend=onnx",
            "run.evaluate_on_devices=true",
            f"data.loader={LOADER}",
            f"data.root={folder}",
            "run.allow=[simulations]",
            "partition=iid",
        ]
    )
    setup = prepare(experiment)
    local = setup.strategy.local(setup.strategy.init(setup.initial_params))
    setup = offering(setup, local)
    if setup.graphs is None:
        raise RuntimeError(f"{model} is outside the limits of a training graph")
    train = TrainRequest(
        params=setup.initial_params,
        packed_mask=None,
        task=setup.task,
        spec_digest=setup.spec.digest,
        round_index=0,
        learning_rate=experiment.train.learning_rate,
        local=local,
        graph=setup.graphs.train,
    )
    evaluate = EvaluateRequest(
        setup.initial_params, setup.task, setup.spec.digest, setup.graphs.evaluate
    )
    for content, name in zip(
        (train.to_content(), evaluate.to_content()), MESSAGES, strict=True
    ):
        write_message(content, folder, name)
    examples = len(setup.data.train) // setup.num_devices
    return experiment.train.epochs * -(-examples // experiment.train.batch_size)


def _run_client(folder: Path, backend: str) -> Figures:
    module = "simulations.benchmarks.torch_free_client"
    ended = subprocess.run(
        [sys.executable, "-m", module, str(folder), backend, str(_REPEATS)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Figures = json.loads(ended.stdout.splitlines()[-1])
    return found


def accuracies(model: str, seeds: Sequence[int]) -> Figures:
    """Return the accuracy after a federation of each kind of device."""
    found = {
        backend: statistics.fmean(_accuracy(model, backend, seed) for seed in seeds)
        for backend in _BACKENDS
    }
    return {
        **{f"{model}_{backend}_accuracy": found[backend] for backend in _BACKENDS},
        f"{model}_accuracy_difference": found["onnx"] - found["torch"],
    }


def _accuracy(model: str, backend: str, seed: int) -> float:
    overrides = [*_PLAIN, *_MODELS[model], f"run.seed={seed}"]
    experiment = compose_experiment([*overrides, f"train.backend={backend}"])
    with tempfile.TemporaryDirectory() as folder:
        simulate_federation(experiment, Path(folder))
        summary = json.loads((Path(folder) / "summary.json").read_text("utf-8"))
    return float(summary["accuracy_fp32"])


def install_sizes() -> Figures:
    """Return what each kind of device has to install, in MB, as installed here."""
    device, both = (_closure(extras) for extras in (("device",), ("device", "train")))
    without, with_torch = _megabytes(device), _megabytes(both)
    return {
        "onnx_install_mb": without,
        "torch_install_mb": with_torch,
        "install_size_ratio": without / with_torch,
    }


def _closure(extras: Sequence[str]) -> set[str]:
    """Return the packages that fedge with these extras needs, fedge itself too."""
    found: dict[str, set[str]] = {}
    todo = [("fedge", set(extras))]
    while todo:
        name, wanted = todo.pop()
        if name in found and wanted <= found[name]:
            continue
        found[name] = found.get(name, set()) | wanted
        todo += _needs(name, found[name])
    return set(found)


def _needs(name: str, extras: set[str]) -> Iterable[tuple[str, set[str]]]:
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(
            marker.evaluate({"extra": extra}) for extra in ("", *extras)
        ):
            yield canonicalize_name(requirement.name), set(requirement.extras)


def _megabytes(names: Iterable[str]) -> float:
    total = 0
    for name in names:
        for file in importlib.metadata.distribution(name).files or ():
            path = Path(str(file.locate()))
            total += path.stat().st_size if path.is_file() else 0
    return total / 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, one client")
    options = parser.parse_args(arguments)
    figures = measure(quick=options.quick)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>38}  {value:.4g}")


if __name__ == "__main__":
    main()
