"""What hostile bytes cost the parsers of models: worst time and memory of each.

    python -m simulations.benchmarks.hostile [--json]

Every parser of model bytes reads each of its hostile files (`hostile_files`) in a child
process of its own, forked after everything is imported. Memory is the child's peak of
resident memory above what it had just before. All must end in an error of ours.

`health` runs a genuine but hostile model: its time is that of the limited child that
tries the model out, its memory is what the device's own process needs meanwhile.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np
from flwr.app import Array

from fedge.__main__ import main as fedge_command
from fedge.compress.delta import apply_delta
from fedge.compress.pack import pack, unpack
from fedge.compress.pipeline import compress
from fedge.config import CompressionConfig
from fedge.errors import DataError, FedgeError
from fedge.flower.records import read_array
from fedge.release.artifact import MAX_UNPACKED_BYTES, digest, unpack_model
from fedge.release.bundle import ReleaseBundle
from fedge.release.health import check_health
from fedge.release.install import install, trust_store
from fedge.release.keys import KeyRing
from fedge.release.passport import Passport
from fedge.release.repository import ReleaseRepository
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.preprocess import Normalization
from simulations.benchmarks.hostile_files import (
    Maker,
    array_files,
    delta_files,
    good_model,
    metadata_files,
    onnx_files,
    packed_files,
    trial_files,
)
from simulations.benchmarks.hostile_passports import good_passport, passports

Reader: TypeAlias = Callable[[bytes, Path], object]

MAX_MEMORY_MB, MAX_MILLISECONDS = 64.0, 50.0
FILE = "model.onnx"
_FIGURES = ("milliseconds", "cpu_milliseconds", "memory_mb")
# Starting an interpreter and a runtime takes longer than reading a file.
CHILD_PARSERS = ("health",)
_BASE = np.random.default_rng(1).bytes(20_000)
_AS_IT_IS = Normalization((0.0,), (1.0,))
RAW = np.ones((5, 4), np.float32)


@dataclass(frozen=True, slots=True)
class Case:
    """One parser, one file.

    Attributes:
        parser, file: their names.
        read: hands bytes, or a file that holds them, to the parser.
        make: makes the bytes.
    """

    parser: str
    file: str
    read: Reader
    make: Maker


@dataclass(frozen=True, slots=True)
class Cost:
    """What one case cost.

    Attributes:
        parser, file: their names.
        error: class of the error that ended it; empty if it was accepted.
        is_ours: whether that is one of fedge's own.
        milliseconds: until it ended.
        cpu_milliseconds: of this process meanwhile; on a busy machine it says more.
        memory_mb: peak resident memory above the start, MiB.
    """

    parser: str
    file: str
    error: str
    is_ours: bool
    milliseconds: float
    cpu_milliseconds: float
    memory_mb: float


def cases(folder: Path) -> Iterator[Case]:
    """Yield every parser with every hostile file that is meant for it.

    Args:
        folder: an empty one to work in.
    """
    passport = good_passport(RAW)
    onnx_readers: Mapping[str, Reader] = {
        "predictor": lambda data, _: OnnxPredictor(data, _AS_IT_IS),
        "predictor (file)": lambda _, file: OnnxPredictor(file, _AS_IT_IS),
        "inspect": _inspect,
        "compress": _compress,
    }
    for name, read in onnx_readers.items():
        yield from _all(name, read, onnx_files())
    packed_readers: Mapping[str, Reader] = {
        "unpack": lambda data, _: unpack(data, max_bytes=MAX_UNPACKED_BYTES),
        "artifact": lambda data, _: unpack_model(
            data, num_bytes=len(good_model()), sha256=digest(good_model())
        ),
        "inspect": _inspect,
    }
    for name, read in packed_readers.items():
        yield from _all(name, read, packed_files())
    yield from _all("delta", _apply, delta_files(_BASE))
    yield from _all("passport", _read_passport, passports(_text(passport)))
    yield from _all("array", _read_array, array_files())
    yield from _all("install", _installer(folder, passport), metadata_files())
    yield from _all(
        "health", lambda _, file: check_health(file, passport), trial_files()
    )


def _all(parser: str, read: Reader, files: Mapping[str, Maker]) -> Iterator[Case]:
    return (Case(parser, name, read, make) for name, make in files.items())


def warm_up(folder: Path) -> None:
    """Let every parser read something good, so that only hostility is measured."""
    good = good_model()
    OnnxPredictor(good, _AS_IT_IS).predict(RAW)
    (folder / FILE).write_bytes(good)
    _inspect(good, folder / FILE)
    unpack(pack(good, level=3), max_bytes=MAX_UNPACKED_BYTES)
    passport = good_passport(RAW)
    Passport.from_custom(passport.to_custom())


def measure(case: Case, folder: Path) -> Cost:
    """Run one case in a child process of its own; its file is put into the folder."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        with os.fdopen(write_end, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(_measure_here(case, folder / FILE)))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        return Cost(case.parser, case.file, "killed", False, 0.0, 0.0, float("inf"))
    return Cost(case.parser, case.file, **json.loads(text))


def _measure_here(case: Case, file: Path) -> dict[str, str | bool | float]:
    data = case.make()
    file.write_bytes(data)
    with contextlib.suppress(OSError):  # forget the peak of making the bytes
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_mb("VmRSS")
    started, cpu_started = time.perf_counter(), time.process_time()
    error, is_ours = "", False
    try:
        case.read(data, file)
    except Exception as exc:
        error, is_ours = type(exc).__name__, isinstance(exc, FedgeError)
    return {
        "error": error,
        "is_ours": is_ours,
        "milliseconds": 1e3 * (time.perf_counter() - started),
        "cpu_milliseconds": 1e3 * (time.process_time() - cpu_started),
        "memory_mb": _status_mb("VmHWM") - before,
    }


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this kernel does not report {name}")


def _inspect(_: bytes, file: Path) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = fedge_command(["inspect", str(file)])
    if status != 0:  # it prints the error
        raise DataError(said.getvalue())


def _compress(data: bytes, _: Path) -> None:
    compress(
        data,
        RAW,
        config=CompressionConfig(),
        evaluate=lambda _: 1.0,
        latency=lambda models: [1.0] * len(models),
    )


def _apply(data: bytes, _: Path) -> bytes:
    return apply_delta(_BASE, data, max_bytes=MAX_UNPACKED_BYTES)


def _read_passport(data: bytes, _: Path) -> Passport:
    return Passport.from_custom({"passport": data.decode()})


def _read_array(data: bytes, _: Path) -> None:
    shape = (1 << 40,) if b"1099511627776" in data else (4,)
    read_array(Array("float32", shape, "numpy.ndarray", data))


def _text(passport: Passport) -> str:
    return passport.to_custom()["passport"]


def _installer(folder: Path, passport: Passport) -> Reader:
    """Return what installs a release whose newest metadata is hostile."""
    keys = KeyRing.create(folder / "keys", root_keys=1, root_threshold=1)
    now = datetime.now(UTC)
    repository = ReleaseRepository.open(
        folder / "releases", keys, expiry_days=30, now=now
    )
    repository.publish(pack(good_model(), level=3), passport, now=now)
    repository.refresh(now)
    trust_store(folder / "device").provision(repository.trusted_root())
    bundle = repository.bundle()

    def read(data: bytes, _: Path) -> object:
        metadata = {**bundle.metadata, "timestamp.json": data}
        return install(folder / "device", ReleaseBundle(metadata, bundle.targets))

    return read


def run(folder: Path) -> list[Cost]:
    """Measure all cases, in their order."""
    warm_up(folder)
    return [measure(case, folder) for case in cases(folder)]


def worst(costs: Sequence[Cost]) -> dict[str, dict[str, float]]:
    """Return each parser's largest times and MiB, and how many files it read."""
    found: dict[str, dict[str, float]] = {}
    for cost in costs:
        entry = found.setdefault(cost.parser, dict.fromkeys(("files", *_FIGURES), 0.0))
        entry["files"] += 1
        for name in _FIGURES:
            entry[name] = max(entry[name], getattr(cost, name))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print one line per parser; with --json everything in one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="fedge.") as name:
        costs = run(Path(name))
    if arguments.json:
        rows = [asdict(cost) for cost in costs]
        print(json.dumps({"worst": worst(costs), "costs": rows}))
        return
    for reader, figures in worst(costs).items():
        print(
            f"{reader:18}{figures['files']:4.0f} files"
            f"{figures['milliseconds']:10.1f} ms"
            f"{figures['cpu_milliseconds']:8.1f} ms of CPU"
            f"{figures['memory_mb']:8.1f} MiB"
        )
    for cost in costs:
        if not cost.is_ours:
            print(
                f"NOT REFUSED: {cost.parser}: {cost.file}: {cost.error or 'accepted'}"
            )


if __name__ == "__main__":
    main()
