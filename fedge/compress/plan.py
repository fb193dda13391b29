"""Which forms of a model are built, which of them are good enough, and which is best.

Nothing is quantized blindly: a form is a candidate until it was measured in the runtime
that the devices use, and one that loses too much accuracy or exceeds a budget is not
chosen, however small it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from fedge.arrays import AnyArray
from fedge.compress.codebook import store_codebook
from fedge.compress.dynamic import quantize_dynamic_int8, suits_dynamic
from fedge.compress.int4 import store_int4
from fedge.compress.quantize import quantize_int8
from fedge.compress.report import Candidate
from fedge.config.compression import CompressionConfig, Quantization
from fedge.errors import CompressionError
from fedge.export.tidy import tidy
from fedge.runtime.ranges import Ranges

FLOAT32 = "float32"

# Accuracies are counts divided by counts: 0.99 - 0.98 must not be more than 0.01.
_ROUNDING = 1e-9

_BUILDERS: Mapping[str, Callable[[bytes, AnyArray | Ranges], bytes]] = {
    Quantization.int8: quantize_int8,
    Quantization.dynamic: lambda model, _: quantize_dynamic_int8(model),
    Quantization.int4: lambda model, _: store_int4(model),
    Quantization.codebook: lambda model, _: store_codebook(model),
}
_RANKINGS: Mapping[Quantization, Callable[[Candidate], tuple[float, ...]]] = {
    Quantization.smallest: lambda c: (c.packed_bytes,),
    Quantization.fastest: lambda c: (c.latency_ms, c.packed_bytes),
    Quantization.most_accurate: lambda c: (-c.accuracy, c.packed_bytes),
}


def needs_ranges(wanted: Quantization) -> bool:
    """Say whether activation ranges are needed to build what is wanted."""
    return wanted is Quantization.int8 or wanted in _RANKINGS


def build(
    fp32_model: bytes, calibration: AnyArray | Ranges, wanted: Quantization
) -> dict[str, bytes]:
    """Return the candidates by name, the float32 model first.

    Args:
        fp32_model: ONNX file.
        calibration: model inputs that fix activation ranges, shape (n, ...), n >= 1;
            or the ranges.
        wanted: one form, or a ranking, for which all forms are built that can be.

    Raises:
        CompressionError: the one form that is wanted cannot be built; or the model's
            operators are too old (`tidy`).
    """
    models, source = {FLOAT32: fp32_model}, tidy(fp32_model)
    for name, builder in _BUILDERS.items():
        if wanted == name:
            models[str(name)] = builder(source, calibration)
        elif wanted in _RANKINGS:
            if name == Quantization.dynamic and not suits_dynamic(source):
                continue
            try:
                models[str(name)] = builder(source, calibration)
            except (CompressionError, ValueError):
                continue  # one of several; the others may do
    return models


def exceeded(candidate: Candidate, config: CompressionConfig) -> list[str]:
    """Return, as text, which budgets a candidate exceeds."""
    budgets = (
        ("max_kilobytes", candidate.packed_bytes / 1e3, config.max_kilobytes),
        ("max_latency_ms", candidate.latency_ms, config.max_latency_ms),
        ("max_memory_mb", candidate.memory_mb, config.max_memory_mb),
    )
    return [
        f"compression.{name}: {_text(value)}, at most {most:g}"
        for name, value, most in budgets
        if most > 0.0 and not value <= most  # a NaN was not measured: it fails
    ]


def _text(value: float) -> str:
    return "could not be measured" if math.isnan(value) else f"{value:.4g}"


def choose(candidates: Sequence[Candidate], config: CompressionConfig) -> str:
    """Return the name of the candidate that is shipped.

    One form: it, unless the float32 model is smaller when packed (then nothing could be
    quantized). A ranking: the first by it that loses no more accuracy than is allowed.
    In either case none that exceeds a budget.

    Args:
        candidates: the float32 model first.
        config: what is wanted, and budgets.

    Raises:
        CompressionError: every candidate exceeds a budget.
    """
    fitting = [c for c in candidates if not exceeded(c, config)]
    if not fitting:
        reasons = [f"{c.name}: {', '.join(exceeded(c, config))}" for c in candidates]
        raise CompressionError(
            "no form of the model is within the budgets; raise them, or make the "
            "network smaller\n" + "\n".join(reasons)
        )
    ranking = _RANKINGS.get(config.quantization)
    if ranking is None:
        return min(fitting, key=lambda c: c.packed_bytes).name
    good = [c for c in fitting if is_accurate(c, candidates[0], config)]
    return min(good or fitting, key=ranking).name


def is_accurate(
    candidate: Candidate, reference: Candidate, config: CompressionConfig
) -> bool:
    """Say whether a candidate loses no more accuracy than is allowed."""
    drop = reference.accuracy - candidate.accuracy
    return not math.isnan(drop) and drop <= config.max_accuracy_drop + _ROUNDING
