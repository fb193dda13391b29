"""Does a genuine model work on this very device? Tried out in a limited child process.

The child (`fedge.runtime.trial`) runs the signed reference inputs; this side
compares what comes back with the signed outputs and budgets. A child that crashes,
hangs, eats memory or answers nonsense fails the check and harms nobody.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedge.arrays import AnyArray, Float32
from fedge.config import Task
from fedge.errors import HealthCheckError
from fedge.release.passport import Passport, golden_sha256
from fedge.runtime.selftest import Job
from fedge.runtime.trial import run_trial

LATENCY_REPEATS = 20
DEFAULT_TIMEOUT_SECONDS = 60.0  # importing the runtime alone takes a small board 3 s


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What the health check measured.

    Attributes:
        latency_ms: median time of one example.
        is_exact: whether the outputs are the signed ones, bit for bit.
        max_error: largest difference from a signed reference output.
        top1_agreement: share of the largest outputs (along the last axis) that are the
            signed ones; 1.0 where there is only one output.
        peak_memory_mb: largest resident size of the child, interpreter included, MiB.
    """

    latency_ms: float
    is_exact: bool
    max_error: float
    top1_agreement: float
    peak_memory_mb: float


def check_health(
    model_path: Path,
    passport: Passport,
    *,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    repeats: int = LATENCY_REPEATS,
) -> HealthReport:
    """Run the reference inputs through the model in a child process and judge.

    Guarantee: returns only if every output is finite and of the signed shape; equal to
    the signed one bit for bit if that was promised, and otherwise within the signed
    tolerance and with the signed share of largest outputs in their places; and latency
    and memory are within the signed budgets.

    Args:
        model_path: the staged ONNX file.
        passport: what was signed with it.
        timeout_seconds: longest time the child may take, and its limit of CPU time.
        repeats: timed predictions.

    Raises:
        HealthCheckError: the reason is in the message.
    """
    job = Job(
        model=str(model_path.resolve()),
        inputs=passport.reference_inputs,
        mean=passport.mean,
        std=passport.std,
        repeats=repeats,
        memory_mb=passport.max_memory_mb,
        cpu_seconds=math.ceil(timeout_seconds),
    )
    answer = run_trial(job, timeout_seconds=timeout_seconds)
    outputs = answer.outputs.unpack()
    expected = passport.reference_outputs.unpack()
    _check_form(outputs, expected)
    max_error = float(np.abs(outputs.astype(np.float64) - expected).max())
    agreement = _top1_agreement(outputs, expected)
    is_exact = golden_sha256(outputs) == golden_sha256(expected)
    if passport.golden_sha256:
        _check_golden(outputs, expected, passport.golden_sha256)
    else:
        _check_close(max_error, agreement, passport)
    _check_budget("latency_ms", answer.latency_ms, passport.max_latency_ms)
    _check_budget("memory_mb", answer.peak_memory_mb, passport.max_memory_mb)
    return HealthReport(
        latency_ms=answer.latency_ms,
        is_exact=is_exact,
        max_error=max_error,
        top1_agreement=agreement,
        peak_memory_mb=answer.peak_memory_mb,
    )


def _check_form(outputs: AnyArray, expected: Float32) -> None:
    if outputs.shape != expected.shape:
        raise HealthCheckError(
            f"health check: outputs have shape {outputs.shape}, signed {expected.shape}"
        )
    if not np.isfinite(outputs).all():
        raise HealthCheckError("health check: an output is not finite")


def _check_golden(outputs: AnyArray, expected: Float32, promised: str) -> None:
    """Raise HealthCheckError unless the outputs have the promised digest."""
    found = golden_sha256(outputs)
    if found == promised:
        return
    error = np.abs(outputs.astype(np.float64) - expected)
    bits = outputs.astype(np.float32).view(np.uint32) ^ expected.view(np.uint32)
    raise HealthCheckError(
        f"health check: the outputs are not the promised ones bit for bit: "
        f"{np.count_nonzero(bits)} of {bits.size} differ, by {error.max():.3g} at "
        f"most (SHA-256 {found[:16]}..., signed {promised[:16]}...)"
    )


def _check_close(max_error: float, agreement: float, passport: Passport) -> None:
    """Raise HealthCheckError unless outputs are close, and name the same classes."""
    if not max_error <= passport.tolerance:
        raise HealthCheckError(
            f"health check: an output differs by {max_error:.3g} from the signed one, "
            f"at most {passport.tolerance:.3g}"
        )
    has_classes = passport.task in (Task.classification, Task.next_token)
    if has_classes and agreement < passport.min_top1_agreement:
        raise HealthCheckError(
            f"health check: {agreement:.1%} of the largest outputs are the signed "
            f"ones, at least {passport.min_top1_agreement:.1%}"
        )


def _check_budget(name: str, value: float, most: float) -> None:
    if value > most:
        raise HealthCheckError(f"health check: {name} {value:.4g}, at most {most:.4g}")


def _top1_agreement(outputs: Float32, expected: Float32) -> float:
    if outputs.ndim < 2:
        return 1.0
    return float(np.mean(outputs.argmax(axis=-1) == expected.argmax(axis=-1)))
