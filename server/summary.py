"""What a finished run leaves in its folder: models, records and `summary.json`."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from fedge.arrays import Float32, ModelSpec
from fedge.flower.telemetry import Traffic
from server.journal import RoundRecord
from server.publish import Published
from server.push import Rollout
from server.setup import Setup


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_model(path: Path, params: Float32, spec: ModelSpec) -> str:
    """Write the model as safetensors; return the file's SHA-256 (hex)."""
    data = bytes(save(spec.unflatten(params), metadata={"spec": spec.digest}))
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def summarize(
    setup: Setup,
    rounds: Sequence[RoundRecord],
    traffic: Mapping[str, Traffic],
    *,
    model_sha256: str,
    release: tuple[Published, Rollout] | None,
) -> dict[str, Any]:
    """Return the run's figures as plain values; what was not measured is None.

    Args:
        setup: the run.
        rounds: all finished rounds.
        traffic: what this process sent and received, by phase.
        model_sha256: of `last.safetensors`.
        release: what was published and what became of it; None without a release.
    """
    asked = sum(record.asked for record in rounds)
    answered = sum(record.answered for record in rounds)
    last = rounds[-1]
    summary: dict[str, Any] = {
        "rounds": len(rounds),
        "devices": setup.num_devices,
        "strategy": str(setup.experiment.strategy["_target_"]),
        "secagg": str(setup.experiment.secagg.mode),
        "data": setup.data.info.name,
        "task": str(setup.data.info.task),
        "num_params": setup.spec.num_trainable,
        "accuracy_fp32": last.score,
        "best_accuracy": max(r.score for r in rounds if not math.isnan(r.score)),
        "sparsity": last.sparsity,
        "bytes_up_per_client_round": _ratio(sum(r.bytes_up for r in rounds), answered),
        "bytes_down_per_client_round": _ratio(sum(r.bytes_down for r in rounds), asked),
        "train_seconds": sum(record.seconds for record in rounds),
        "model_sha256": model_sha256,
        "accuracy_shipped": None,
        "bytes_fp32": setup.initial_params.nbytes,
        "bytes_shipped": None,
        "latency_ms_fp32": None,
        "latency_ms_shipped": None,
        "devices_on_release": 0,
        "traffic": {phase: asdict(counts) for phase, counts in traffic.items()},
    }
    if release is not None:
        summary.update(_release_figures(*release))
    return {name: _plain(value) for name, value in summary.items()}


def _release_figures(published: Published, rollout: Rollout) -> dict[str, Any]:
    report = published.compressed.report
    fp32 = report.candidates[0]
    return {
        "accuracy_fp32": fp32.accuracy,
        "accuracy_shipped": report.shipped.accuracy,
        "bytes_fp32": report.full_bytes,
        "bytes_shipped": report.shipped.packed_bytes,
        "latency_ms_fp32": fp32.latency_ms,
        "latency_ms_shipped": report.shipped.latency_ms,
        "devices_on_release": rollout.on_release,
        "devices_rolled_back": rollout.rolled_back,
        "devices_failed": rollout.failed,
        "device_score": rollout.device_score,
        "device_latency_ms": rollout.device_latency_ms,
        "release_version": published.passport.version,
        "release_sha256": hashlib.sha256(published.compressed.artifact).hexdigest(),
        "compression": report.to_dict(),
    }


def to_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as JSON for people: one entry per line."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def _ratio(total: float, count: int) -> float | None:
    return total / count if count else None


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
