"""`fedge compress MODEL --data FILE`: make a model small that fedge did not train.

All forms are built, measured on this machine in the devices' runtime, held against the
budgets, and the best is written. Exit code 2 if none is good enough.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from fedge.config.compression import CompressionConfig, Quantization
from fedge.config.data import Task
from fedge.config.fleet import DeviceKind
from fedge.errors import CompressionError, ConfigError, DataError

if TYPE_CHECKING:
    from fedge.compress.pipeline import Compressed
    from fedge.compress.samples import Samples

    # A plain import would need a private name at run time.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_ABOUT = """\
Make an ONNX model small that fedge did not train: int8, four-bit and codebook forms are
built and measured, and the best that loses no more accuracy than is allowed, and fits
the budgets, is written. FILE holds numpy arrays: numpy.savez(FILE, inputs=..., targets=
...), inputs as the model takes them, the batch first. The first examples (labels
unused) calibrate int8; all judge."""
_ALIASES = {
    "pi-zero-2": DeviceKind.raspberry_pi_zero_2,
    "pi4": DeviceKind.raspberry_pi_4,
    "pi5": DeviceKind.raspberry_pi_5,
    "laptop": DeviceKind.laptop,
}
_MAX_MODEL_MB = 1024
# How errors name settings, and what they are called here; longer ones first.
_NAMED = {
    "compression.quantization=none": "--form smallest",
    "compression.quantization": "--form",
    "compression.max_accuracy_drop": "--max-drop",
    "compression.max_kilobytes": "--max-kb",
    "compression.max_latency_ms": "--max-latency-ms",
    "compression.max_memory_mb": "--max-memory-mb",
    "compression.sparsity": "--sparsity",
    "compression.calibration_examples": "the examples in --data",
}


def add_command(commands: "Subparsers") -> None:
    """Add `compress` to the parser of `fedge`."""
    parser = commands.add_parser(
        "compress",
        help="make an ONNX model small, and measure what that costs",
        description=_ABOUT,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a float32 ONNX file")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--task",
        choices=[str(task) for task in Task],
        default=str(Task.classification),
        help="what the model predicts (default: %(default)s)",
    )
    parser.add_argument(
        "--profile",
        choices=list(_ALIASES),
        help="the device: its budgets apply, and latencies are translated to its speed",
    )
    parser.add_argument(
        "--form",
        choices=[str(form) for form in Quantization if form is not Quantization.none],
        default=str(Quantization.smallest),
        help="one form, or what the best is first in (default: %(default)s)",
    )
    _add_limits(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the results go (default: MODEL's name with -small)",
    )
    parser.set_defaults(run=run)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for name, default, what in (
        ("--max-drop", 0.01, "accuracy that may be lost, as a fraction"),
        ("--max-kb", 0.0, "kilobytes that may be sent; 0: any"),
        ("--max-latency-ms", 0.0, "for one example; 0: any, 100 with --profile"),
        ("--max-memory-mb", 0.0, "of the process; 0: any, a quarter with --profile"),
        ("--sparsity", 0.0, "share of the weights to set to zero first, in [0, 1)"),
    ):
        parser.add_argument(
            name,
            type=float,
            default=default,
            metavar="X",
            help=f"{what} (default: %(default)s)",
        )


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments say; return the exit code.

    Raises:
        CompressionError, ConfigError, DataError: with remedies that name options.
    """
    try:
        return _run(arguments)
    except (CompressionError, ConfigError) as exc:
        text = str(exc)
        for setting, option in _NAMED.items():
            text = text.replace(setting, option)
        raise type(exc)(text) from exc


def _run(arguments: argparse.Namespace) -> int:
    from fedge.compress.prune_file import prune_file
    from fedge.compress.samples import read_samples

    config = _config(arguments)
    folder = arguments.out or arguments.model.with_name(f"{arguments.model.stem}-small")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out: {folder} is a file; name a folder")
    model = _read(arguments.model)
    samples = read_samples(arguments.data, Task(arguments.task))
    dense_bytes = len(model)
    if arguments.sparsity > 0.0:
        model = prune_file(model, sparsity=arguments.sparsity)
    result = _compress(model, samples, config, Task(arguments.task), dense_bytes)
    print(result.report.table())
    _write(result, folder)
    print(
        f"{result.report.chosen}: {result.report.ratio:.1f} times smaller when sent, "
        f"accuracy {result.report.shipped.accuracy:.4f}; in {folder}"
    )
    return 0


def _config(arguments: argparse.Namespace) -> CompressionConfig:
    from fedge.compress.target import with_budgets

    config = CompressionConfig(
        sparsity=arguments.sparsity,
        quantization=Quantization(arguments.form),
        max_accuracy_drop=arguments.max_drop,
        max_kilobytes=arguments.max_kb,
        max_latency_ms=arguments.max_latency_ms,
        max_memory_mb=arguments.max_memory_mb,
        device=_ALIASES[arguments.profile] if arguments.profile else None,
    )
    return with_budgets(config)


def _read(path: Path) -> bytes:
    """Return a float32 model whose batch may have any size."""
    from fedge.export.describe import describe

    try:
        with path.open("rb") as file:
            model = file.read((_MAX_MODEL_MB << 20) + 1)
    except OSError as exc:
        raise DataError(f"{path}: {exc.strerror}") from exc
    if len(model) > _MAX_MODEL_MB << 20:
        raise DataError(f"{path}: more than {_MAX_MODEL_MB} MB")
    found = describe(model)
    if found.quantization != "float32":
        raise DataError(
            f"{path}: is {found.quantization} already; compress the float32 model that "
            f"it was made from"
        )
    if found.fixed_batch:
        raise DataError(
            f"{path}: its batch has a fixed size ({found.inputs[0]}); export it with a "
            f"dynamic first axis (torch.onnx.export: dynamic_shapes)"
        )
    return model


def _compress(
    model: bytes,
    samples: "Samples",
    config: CompressionConfig,
    task: Task,
    dense_bytes: int,
) -> "Compressed":
    from fedge.compress.judge import Judge
    from fedge.compress.pipeline import compress
    from fedge.runtime.preprocess import Normalization

    is_float = samples.inputs.dtype.kind == "f"
    as_it_is = Normalization((0.0,), (1.0,)) if is_float else Normalization()
    # A regression's score is R^2, whatever the unit of its targets.
    unit = 1.0
    if task is Task.regression:
        unit = float(samples.targets.std()) or 1.0
    judge = Judge(
        samples.inputs,
        samples.targets / unit if unit != 1.0 else samples.targets,
        task,
        as_it_is,
        unit=unit,
        device=config.device,
    )
    try:
        judge.score(model)
    except (ValueError, IndexError) as exc:
        raise DataError(
            f"--data: does not fit the model or --task {task}: {exc}"
        ) from exc
    return compress(
        model,
        samples.inputs[: config.calibration_examples],
        config=config,
        evaluate=judge.score,
        latency=judge.latencies_ms,
        memory=judge.memory_mb,
        dense_bytes=dense_bytes,
    )


def _write(result: "Compressed", folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(result.model)
        (folder / "model.onnx.zst").write_bytes(result.artifact)
        text = json.dumps(result.report.to_dict(), indent=2, allow_nan=False)
        (folder / "report.json").write_text(text + "\n", encoding="utf-8")
        _draw(result, folder / "candidates.png")
    except OSError as exc:
        raise DataError(f"--out: {folder}: {exc.strerror}") from exc


def _draw(result: "Compressed", path: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        print("no picture: it needs pip install 'fedge[simulation]'")
        return
    from fedge.compress.picture import draw_candidates

    figure = Figure((8, 4.5), layout="constrained")
    draw_candidates(figure, result.report.to_dict())
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)
