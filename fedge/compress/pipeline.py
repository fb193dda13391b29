"""From a float32 ONNX file to the bytes that are signed: build, measure, choose, check.

The pipeline has no clock and no data of its own: how good and how fast a model is comes
from two functions that are handed in. Not in here: pruning, which happens while the
model trains, and signing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from fedge.arrays import AnyArray
from fedge.compress.codebook import store_codebook
from fedge.compress.pack import pack
from fedge.compress.quantize import quantize_int8
from fedge.compress.report import Candidate, CompressionReport
from fedge.config.compression import CompressionConfig, Quantization
from fedge.errors import CompressionError
from fedge.runtime.model_check import check_model
from fedge.runtime.ranges import Ranges

Evaluate = Callable[[bytes], float]
Latency = Callable[[Sequence[bytes]], Sequence[float]]

# Accuracies are counts divided by counts: 0.99 - 0.98 must not be more than 0.01.
_ROUNDING = 1e-9


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
    dense_bytes: int = 0,
) -> Compressed:
    """Return the model that the settings ask for, if it is good and small enough.

    With `quantization=int8` (or `codebook`) that model is shipped, unless packing
    leaves it no smaller than the float32 one (nothing in it could be quantized). With
    `smallest` all are built and measured, and the smallest one is shipped that loses no
    more accuracy than is allowed.

    Guarantee: what is returned has passed both gates, and unpacking `artifact` gives
    `model`; with a deterministic `evaluate` the same inputs give the same bytes.

    Args:
        fp32_model: ONNX file of the trained, possibly pruned, network.
        calibration: model inputs that fix the activation ranges of int8, or the
            ranges.
        config: number format, gates and effort.
        evaluate: the accuracy of an ONNX file, in the runtime that the devices use;
            larger is better.
        latency: milliseconds per prediction of each file; they are handed over together
            so that the runs can alternate on a busy machine.
        dense_bytes: see `CompressionReport`.

    Raises:
        CompressionError: a gate was missed, or the int8 model does not run. Publish
            nothing.
        DataError, VerificationError: `fp32_model` is not ONNX, or refused by
            `check_model` before anything else reads it.
        ValueError: `latency` returned another number of values than it got files.
    """
    check_model(fp32_model)
    models = {"float32": fp32_model}
    wanted = config.quantization
    if wanted in (Quantization.int8, Quantization.smallest):
        models["int8"] = quantize_int8(fp32_model, calibration)
    if wanted in (Quantization.codebook, Quantization.smallest):
        models["codebook"] = store_codebook(fp32_model)
    packed = {n: pack(model, level=config.zstd_level) for n, model in models.items()}
    candidates = _measure(models, packed, evaluate, latency)
    report = CompressionReport(candidates, _choose(candidates, config), dense_bytes)
    _check_accuracy(report, config)
    _check_ratio(report, config)
    return Compressed(packed[report.chosen], models[report.chosen], report)


def _choose(candidates: Sequence[Candidate], config: CompressionConfig) -> str:
    """Return the smallest candidate's name; of the good ones, if all were built."""
    allowed = candidates
    if config.quantization is Quantization.smallest:
        least = candidates[0].accuracy - config.max_accuracy_drop - _ROUNDING
        allowed = [c for c in candidates if c.accuracy >= least] or candidates
    return min(allowed, key=lambda candidate: candidate.packed_bytes).name


def _measure(
    models: dict[str, bytes],
    packed: dict[str, bytes],
    evaluate: Evaluate,
    latency: Latency,
) -> tuple[Candidate, ...]:
    times = latency(list(models.values()))
    return tuple(
        Candidate(
            name=name,
            file_bytes=len(model),
            packed_bytes=len(packed[name]),
            accuracy=evaluate(model),
            latency_ms=milliseconds,
            sparsity=_sparsity(model),
        )
        for (name, model), milliseconds in zip(models.items(), times, strict=True)
    )


def _sparsity(model: bytes) -> float:
    """Return the share of zeros in the weights: initializers of two or more axes."""
    graph = onnx.load_model_from_string(model).graph
    weights = [numpy_helper.to_array(w) for w in graph.initializer if len(w.dims) > 1]
    total = sum(w.size for w in weights)
    return 1.0 - sum(np.count_nonzero(w) for w in weights) / total if total else 0.0


def _check_accuracy(report: CompressionReport, config: CompressionConfig) -> None:
    drop, limit = report.accuracy_drop, config.max_accuracy_drop
    if not drop <= limit + _ROUNDING:  # a NaN fails as well
        raise CompressionError(
            f"compression.max_accuracy_drop: {report.chosen} loses {drop:.4f} against "
            f"float32, at most {limit} is allowed; raise the limit or "
            "compression.calibration_examples, or set compression.quantization=none\n"
            f"{report.table()}"
        )


def _check_ratio(report: CompressionReport, config: CompressionConfig) -> None:
    if not report.ratio >= config.min_ratio:
        raise CompressionError(
            f"compression.min_ratio: {report.chosen} is {report.ratio:.2f} times "
            f"smaller than the float32 file, at least {config.min_ratio} is required; "
            "lower the limit, raise compression.sparsity, or set "
            f"compression.quantization=int8\n{report.table()}"
        )
