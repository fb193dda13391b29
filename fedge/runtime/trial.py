"""Run an untrusted model in a child process under limits, and wait for its outputs.

The child is `fedge.runtime.selftest`. One that crashes, hangs, eats memory or answers
nonsense raises an error here and harms nobody.
"""

import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

import fedge
from fedge.arrays import AnyArray
from fedge.errors import HealthCheckError
from fedge.runtime.limits import MAX_OUTPUT_BYTES
from fedge.runtime.packed import PackedArray
from fedge.runtime.preprocess import Normalization
from fedge.runtime.selftest import Job, Zeros

_MAX_COMMAS = 64  # the entries of an answer and the axes of its outputs


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True, slots=True)
class Answer:
    """What the child says: right in form, true or not.

    Attributes:
        outputs: of all inputs.
        latency_ms: median time of one example.
        peak_memory_mb: largest resident size of the child, MiB.
    """

    outputs: PackedArray
    latency_ms: float
    peak_memory_mb: float


_ANSWER = TypeAdapter(Answer)


def run_trial(job: Job, *, timeout_seconds: float) -> Answer:
    """Run the job in a child process and return its answer, believed only in form.

    Guarantee: whatever the model does, this process neither runs it nor waits longer
    than `timeout_seconds`, and needs no more memory than the answer.

    Args:
        job: what to run, and the limits of the child.
        timeout_seconds: longest time the child may take.

    Raises:
        HealthCheckError: the child crashed, was killed, took too long, or answered
            nonsense; the reason is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="fedge-health-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(job.to_json(), encoding="utf-8")
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            status = _run(folder, out.fileno(), err.fileno(), timeout_seconds)
        text = (folder / "out").read_bytes()[:MAX_OUTPUT_BYTES]
        complaint = (folder / "err").read_bytes()[-300:].decode("utf-8", "replace")
    if status < 0:
        raise HealthCheckError(
            f"health check: the child was killed by signal {-status}"
        )
    if status != 0:
        reason = text[:500].decode("utf-8", "replace").strip() or complaint.strip()
        raise HealthCheckError(f"health check: the child failed: {reason}")
    if text.count(b",") > _MAX_COMMAS:  # lists of millions of entries
        raise HealthCheckError("health check: the child's answer makes no sense")
    try:
        return _ANSWER.validate_json(text)
    except ValidationError as exc:
        raise HealthCheckError(
            "health check: the child's answer makes no sense"
        ) from exc


def measure_memory(
    model: bytes,
    like: AnyArray,
    normalization: Normalization,
    *,
    limit_mb: int,
    timeout_seconds: float,
) -> float:
    """Return the peak memory of a process that runs a model, in MiB.

    The interpreter and the runtime are in it, as they are on a device.

    Args:
        model: an ONNX file's bytes.
        like: examples, shape (n, ...), n >= 1; zeros of their shape are run.
        normalization: from raw values to model inputs.
        limit_mb: the process may not have more.
        timeout_seconds: longest time it may take.

    Raises:
        HealthCheckError: the model does not run within the limits.
    """
    with tempfile.TemporaryDirectory(prefix="fedge-memory-") as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(model)
        job = Job(
            model=str(path),
            inputs=Zeros(like.dtype.name, like.shape),
            mean=normalization.mean,
            std=normalization.std,
            repeats=1,
            memory_mb=limit_mb,
            cpu_seconds=math.ceil(timeout_seconds),
        )
        return run_trial(job, timeout_seconds=timeout_seconds).peak_memory_mb


def _run(folder: Path, out: int, err: int, timeout_seconds: float) -> int:
    # -P: no module is taken from the current folder.
    command = [sys.executable, "-P", "-m", "fedge.runtime.selftest", "job.json"]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            timeout=timeout_seconds,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired as exc:
        raise HealthCheckError(
            f"health check: no answer within {timeout_seconds} s"
        ) from exc


def _environment() -> dict[str, str]:
    """Return all that the child is told: where fedge is, and to be small and quiet."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(fedge.__file__).resolve().parents[1]),
        "ORT_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
