"""What candidates are measured on, with a model whose answers are known."""

import math

import numpy as np
import pytest

from fedge.arrays import Float32
from fedge.compress.judge import Judge
from fedge.config import Task
from fedge.runtime.packed import MAX_PACKED_BYTES
from fedge.runtime.preprocess import Normalization
from tests.fedge.runtime.onnx_models import WEIGHTS, linear_model, linear_proto

AS_IT_IS = Normalization((0.0,), (1.0,))


def examples() -> Float32:
    return np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


def test_a_score_is_the_share_of_right_answers() -> None:
    targets = (examples() @ WEIGHTS).argmax(axis=1)
    targets[:16] = (targets[:16] + 1) % 3
    judge = Judge(examples(), targets, Task.classification, AS_IT_IS)
    assert judge.score(linear_model()) == 0.75


def test_a_regression_is_judged_in_units_of_its_targets() -> None:
    weights = WEIGHTS[:, :1] * np.float32(1000.0)
    truth = (examples() @ weights)[:, 0]
    unit = float(truth.std())
    targets = (truth + unit / 2) / unit
    judge = Judge(examples(), targets, Task.regression, AS_IT_IS, unit=unit)
    model = bytes(linear_proto(weights).SerializeToString())
    assert judge.score(model) == pytest.approx(1.0 - 0.5**2, rel=1e-4)


def test_every_file_has_its_own_latency() -> None:
    targets = np.zeros(64, np.int64)
    judge = Judge(examples(), targets, Task.classification, AS_IT_IS)
    found = judge.latencies_ms([linear_model()] * 3)
    assert len(found) == 3
    assert all(milliseconds > 0.0 for milliseconds in found)


def test_memory_is_measured_for_examples_of_any_size() -> None:
    """An example, and its outputs, larger than what a release may have in it."""
    rows = MAX_PACKED_BYTES // WEIGHTS[:, 0].nbytes
    raw = np.zeros((1, 3 * rows, 4), np.float32)
    judge = Judge(raw, np.zeros(1, np.int64), Task.classification, AS_IT_IS)
    few = Judge(raw[:, :2], judge.targets, Task.classification, AS_IT_IS)
    made_mb = (raw.nbytes + raw[..., :3].nbytes) / 2**20
    found = judge.memory_mb(linear_model()) - few.memory_mb(linear_model())
    assert made_mb / 2 < found < 10 * made_mb


def test_what_does_not_run_within_the_limit_has_no_memory() -> None:
    targets = np.zeros(64, np.int64)
    judge = Judge(
        examples(), targets, Task.classification, AS_IT_IS, memory_limit_mb=64
    )
    assert math.isnan(judge.memory_mb(b"no model"))
