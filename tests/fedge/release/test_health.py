import math
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from onnx import NodeProto, helper, numpy_helper

from fedge.config import Task
from fedge.errors import HealthCheckError
from fedge.release.health import check_health
from fedge.release.passport import Passport, golden_sha256
from fedge.runtime.packed import PackedArray
from fedge.runtime.predictor import OnnxPredictor
from tests.fedge.release import kit


def written(folder: Path, model: bytes) -> tuple[Path, Passport]:
    path = folder / "model.onnx"
    path.write_bytes(model)
    return path, kit.release_of(model, 1)[1]


def grown(num_values: int) -> list[NodeProto]:
    """Operators that make at least so many zeros of the input, by doubling: `huge`.

    Where a size follows from the input only, nothing but a trial run finds it.
    """
    steps = [helper.make_node("Sub", ["x", "x"], ["v0"])]
    count = math.ceil(math.log2(num_values / 4))
    steps += [
        helper.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0)
        for i in range(count)
    ]
    return [*steps, helper.make_node("Identity", [f"v{count}"], ["huge"])]


def endless_model() -> bytes:
    """A thousand times the sine of four million numbers."""
    names = ["huge", *(f"s{i}" for i in range(1000))]
    steps = [
        helper.make_node("Sin", [name], [following])
        for name, following in pairwise(names)
    ]
    return kit.onnx_model(
        [*grown(1 << 22), *steps, helper.make_node("Identity", [names[-1]], ["y"])], []
    )


def hungry_model(num_values: int) -> bytes:
    """Makes that many zeros, four bytes each, and adds their sum to its input."""
    total = helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0)
    add = helper.make_node("Add", ["x", "sum"], ["y"])
    return kit.onnx_model([*grown(num_values), total, add], [])


def test_a_healthy_model_is_measured(tmp_path: Path) -> None:
    path, passport = written(tmp_path, kit.linear_model(kit.weights(1)))
    report = check_health(path, passport)
    assert 0 <= report.max_error <= passport.tolerance
    assert report.top1_agreement == 1.0
    assert 0 < report.latency_ms < passport.max_latency_ms
    assert 20 < report.peak_memory_mb < passport.max_memory_mb


def test_the_memory_of_the_caller_is_not_counted(tmp_path: Path) -> None:
    ballast = np.ones(30_000_000)  # 240 MB, touched
    path, passport = written(tmp_path, kit.linear_model(kit.weights(1)))
    assert check_health(path, passport).peak_memory_mb < 150
    assert ballast[-1] == 1


def test_outputs_that_are_not_finite_fail(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.zeros((4, 3), np.float32), "w")
    zeros = helper.make_node("MatMul", ["x", "w"], ["z"])
    model = kit.onnx_model(
        [zeros, helper.make_node("Div", ["z", "z"], ["y"])], [weights]
    )
    with pytest.raises(HealthCheckError, match="not finite"):
        check_health(*written(tmp_path, model))


def test_outputs_beyond_the_tolerance_fail(tmp_path: Path) -> None:
    other = kit.weights(1) + np.float32(0.01)
    with pytest.raises(HealthCheckError, match="differs by"):
        check_health(*written(tmp_path, kit.linear_model(other)))


def test_outputs_of_another_shape_fail(tmp_path: Path) -> None:
    narrow = kit.linear_model(kit.weights(1)[:, :2])
    with pytest.raises(HealthCheckError, match=r"shape \(5, 2\), signed \(5, 3\)"):
        check_health(*written(tmp_path, narrow))


def test_a_model_for_other_inputs_fails(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((5, 3), np.float32), "w")
    shape = numpy_helper.from_array(np.array([-1, 5]), "shape")
    fold = helper.make_node("Reshape", ["x", "shape"], ["five"])
    product = helper.make_node("MatMul", ["five", "w"], ["y"])
    path, passport = written(
        tmp_path, kit.onnx_model([fold, product], [weights, shape])
    )
    with pytest.raises(HealthCheckError, match="the model failed on inputs"):
        check_health(path, kit.with_references(passport, 3))


def test_a_model_slower_than_its_budget_fails(tmp_path: Path) -> None:
    path, passport = written(tmp_path, kit.linear_model(kit.weights(1)))
    with pytest.raises(HealthCheckError, match=r"latency_ms .* at most 1e-06"):
        check_health(path, replace(passport, max_latency_ms=1e-6))


def test_a_process_larger_than_its_budget_fails(tmp_path: Path) -> None:
    path, passport = written(tmp_path, hungry_model(num_values=8_000_000))
    outputs = PackedArray.pack((kit.INPUTS - 1) / 2)  # that model only normalizes
    small = replace(passport, reference_outputs=outputs, max_memory_mb=64)
    with pytest.raises(HealthCheckError, match=r"memory_mb .* at most 64"):
        check_health(path, small)


def test_a_model_that_never_ends_is_stopped(tmp_path: Path) -> None:
    path, passport = written(tmp_path, endless_model())
    started = time.monotonic()
    with pytest.raises(HealthCheckError, match=r"no answer within 1\.5 s|signal"):
        check_health(path, passport, timeout_seconds=1.5)
    assert time.monotonic() - started < 10


def test_a_model_that_eats_all_memory_fails(tmp_path: Path) -> None:
    with pytest.raises(HealthCheckError, match="child failed"):
        check_health(*written(tmp_path, hungry_model(num_values=10**11)))


def test_a_child_that_is_killed_fails(tmp_path: Path) -> None:
    path, passport = written(tmp_path, endless_model())
    killer = threading.Thread(target=kill_the_selftest)
    killer.start()
    with pytest.raises(HealthCheckError, match="killed by signal 9"):
        check_health(path, passport, timeout_seconds=20.0)
    killer.join()


def kill_the_selftest() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for child in psutil.Process().children():
            if "fedge.runtime.selftest" in child.cmdline():
                child.kill()
                return
        time.sleep(0.02)


@pytest.mark.parametrize("model", [b"rubbish", b"\x0a\x03abc"])
def test_a_file_that_is_no_model_fails(tmp_path: Path, model: bytes) -> None:
    with pytest.raises(HealthCheckError, match="DataError: model file"):
        check_health(*written(tmp_path, model))


def test_a_missing_file_fails(tmp_path: Path) -> None:
    _, passport = kit.release(1)
    with pytest.raises(HealthCheckError, match="No such file"):
        check_health(tmp_path / "none.onnx", passport)


def golden(model: bytes) -> Passport:
    """Signed with the very bits that the model gives here, and a wide tolerance."""
    passport = replace(kit.release_of(model, 1)[1], tolerance=100.0)
    predictor = OnnxPredictor(model, passport.normalization)
    outputs = predictor.predict(kit.INPUTS)
    return replace(
        passport,
        reference_outputs=PackedArray.pack(outputs),
        golden_sha256=golden_sha256(outputs),
    )


def test_promised_bits_are_demanded(tmp_path: Path) -> None:
    path, _ = written(tmp_path, kit.linear_model(kit.weights(1)))
    report = check_health(path, golden(path.read_bytes()))
    assert report.is_exact
    assert report.max_error == 0.0


def test_one_changed_bit_of_a_weight_breaks_the_promise(tmp_path: Path) -> None:
    path, _ = written(tmp_path, kit.linear_model(kit.weights(1)))
    passport = golden(path.read_bytes())
    changed = kit.weights(1)
    changed.view(np.uint32)[2, 1] ^= 1 << 6  # 1e-5 of its value
    path.write_bytes(kit.linear_model(changed))
    with pytest.raises(HealthCheckError, match=r"bit for bit: \d of 15 differ, by"):
        check_health(path, passport)
    # The tolerance alone would not have seen it.
    assert check_health(path, replace(passport, golden_sha256="")).max_error < 1e-4


def test_without_a_promise_the_classes_must_agree(tmp_path: Path) -> None:
    path, passport = written(tmp_path, kit.linear_model(kit.weights(1)))
    other = -passport.reference_outputs.unpack()
    signed = replace(
        passport,
        reference_outputs=PackedArray.pack(other),
        tolerance=100.0,
        min_top1_agreement=0.9,
    )
    with pytest.raises(HealthCheckError, match=r"are the signed ones, at least 90\.0%"):
        check_health(path, signed)
    number = replace(signed, task=Task.regression)
    assert not check_health(path, number).is_exact
