"""From a float32 ONNX file to the bytes that are signed: build, measure, choose, check.

The pipeline has no clock and no data of its own: how good and how fast a model is comes
from two functions that are handed in. Not in here: pruning, which happens while the
model trains, and signing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

from fedge.arrays import AnyArray
from fedge.compress.pack import pack
from fedge.compress.plan import FLOAT32, build, choose, exceeded, is_accurate
from fedge.compress.report import Candidate, CompressionReport
from fedge.config.compression import CompressionConfig
from fedge.errors import CompressionError
from fedge.export.describe import describe
from fedge.runtime.model_check import check_model
from fedge.runtime.ranges import Ranges

Evaluate = Callable[[bytes], float]
Latency = Callable[[Sequence[bytes]], Sequence[float]]
Memory = Callable[[bytes], float]


@dataclass(frozen=True, slots=True)
class Compressed:
    """What is shipped, and why.

    Attributes:
        artifact: the packed model; these bytes are signed and sent.
        model: the same, unpacked: an ONNX file.
        report: all candidates.
    """

    artifact: bytes
    model: bytes
    report: CompressionReport


def compress(
    fp32_model: bytes,
    calibration: AnyArray | Ranges,
    *,
    config: CompressionConfig,
    evaluate: Evaluate,
    latency: Latency,
    memory: Memory | None = None,
    dense_bytes: int = 0,
) -> Compressed:
    """Return the form of the model that the settings ask for, if it is good enough.

    With one form (`quantization=int8`) that is shipped, unless packing leaves it no
    smaller than the float32 one (nothing in it could be quantized). With `smallest`,
    `fastest` or `most_accurate` all forms are built and measured, and the first by that
    order is shipped which loses no more accuracy than is allowed. What exceeds a budget
    is never shipped.

    Guarantee: what is returned has passed all gates, and unpacking `artifact` gives
    `model`; with a deterministic `evaluate` and without an order or a budget of time or
    memory the same inputs give the same bytes.

    Args:
        fp32_model: ONNX file of the trained, possibly pruned, network.
        calibration: model inputs that fix the activation ranges of int8, or the
            ranges.
        config: number format, gates, budgets and effort.
        evaluate: the accuracy of an ONNX file, in the runtime that the devices use;
            larger is better.
        latency: milliseconds per prediction of each file; they are handed over together
            so that the runs can alternate on a busy machine.
        memory: peak memory of a process that runs a file, in MiB; asked only if there
            is a budget for it.
        dense_bytes: see `CompressionReport`.

    Raises:
        CompressionError: a gate was missed, or the int8 model does not run. Publish
            nothing.
        DataError, VerificationError: `fp32_model` is not ONNX, or refused by
            `check_model` before anything else reads it.
        ValueError: `latency` returned another number of values than it got files.
    """
    check_model(fp32_model)
    models = build(fp32_model, calibration, config.quantization)
    packed = {n: pack(model, level=config.zstd_level) for n, model in models.items()}
    candidates = _measure(models, packed, evaluate, latency)
    if config.max_memory_mb > 0.0 and memory is not None:
        candidates = [replace(c, memory_mb=memory(models[c.name])) for c in candidates]
    report = CompressionReport(
        tuple(replace(c, exceeded=tuple(exceeded(c, config))) for c in candidates),
        choose(candidates, config),
        dense_bytes,
        str(config.device or ""),
    )
    _check_accuracy(report, config)
    _check_ratio(report, config)
    return Compressed(packed[report.chosen], models[report.chosen], report)


def _measure(
    models: Mapping[str, bytes],
    packed: Mapping[str, bytes],
    evaluate: Evaluate,
    latency: Latency,
) -> list[Candidate]:
    times = latency(list(models.values()))
    network = describe(models[FLOAT32])  # which no number format changes
    return [
        Candidate(
            name=name,
            file_bytes=len(model),
            packed_bytes=len(packed[name]),
            accuracy=evaluate(model),
            latency_ms=milliseconds,
            sparsity=_sparsity(model),
            parameters=network.num_parameters,
            macs=network.macs,
        )
        for (name, model), milliseconds in zip(models.items(), times, strict=True)
    ]


def _sparsity(model: bytes) -> float:
    sparsity = describe(model).sparsity
    return 0.0 if isnan(sparsity) else sparsity


def _check_accuracy(report: CompressionReport, config: CompressionConfig) -> None:
    drop, limit = report.accuracy_drop, config.max_accuracy_drop
    if not is_accurate(report.shipped, report.candidates[0], config):
        raise CompressionError(
            f"compression.max_accuracy_drop: {report.chosen} loses {drop:.4f} against "
            f"float32, at most {limit} is allowed; raise the limit or "
            "compression.calibration_examples, or set compression.quantization=none\n"
            f"{report.table()}"
        )


def _check_ratio(report: CompressionReport, config: CompressionConfig) -> None:
    is_whole = report.chosen == FLOAT32 and config.min_ratio <= 1.0
    if not report.ratio >= config.min_ratio and not is_whole:
        raise CompressionError(
            f"compression.min_ratio: {report.chosen} is {report.ratio:.2f} times "
            f"smaller than the float32 file, at least {config.min_ratio} is required; "
            "lower the limit, remove more weights or channels, or choose a smaller "
            f"form (compression.quantization)\n{report.table()}"
        )
