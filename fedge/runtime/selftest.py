"""Run a model once, under limits, and say what came out: `python -m ...selftest JOB`.

The health gate starts this as a child process, so that a model that crashes the
runtime, eats all memory or never ends takes only the child with it. JOB is the path of
a JSON file (class `Job`); the answer is one line of JSON on stdout: the outputs, the
latency and the peak memory, or `{"error": ...}` with exit status 1. Judging the answer
is not done here: the parent does not believe the child.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedge.errors import FedgeError
from fedge.runtime.limits import limit_process, peak_memory_mb

if TYPE_CHECKING:
    from fedge.runtime.packed import PackedArray


@dataclass(frozen=True, slots=True)
class Zeros:
    """Inputs whose values do not matter.

    Attributes:
        dtype: name of the number type.
        shape: (n, ...), n >= 1.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run.

    Attributes:
        model: path of the ONNX file.
        inputs: raw examples, shape (n, ...), n >= 1; or zeros in their place, of any
            size, if only time and memory matter: then no outputs are answered.
        mean, std: the normalization.
        repeats: timed predictions of one example.
        batch_size: inputs that are run together, whose outputs are then joined along
            the first axis; 0 runs all at once.
        memory_mb, cpu_seconds: limits of this process.
    """

    model: str
    inputs: "PackedArray | Zeros"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    repeats: int
    memory_mb: int
    cpu_seconds: int
    batch_size: int = 0

    def to_json(self) -> str:
        """Return the job as the text that `main` reads."""
        return json.dumps(asdict(self))


def run(text: str) -> str:
    """Return the answer to the job `text`, as one line of JSON.

    The limits are set before numpy and the runtime are imported.

    Raises:
        DataError: the model cannot be loaded.
        VerificationError: the model is more than one file.
        ConfigError: the outputs are larger than an answer may be.
        ValueError: the model failed on the inputs.
    """
    job = json.loads(text)
    limit_process(memory_mb=job["memory_mb"], cpu_seconds=job["cpu_seconds"])
    import numpy as np

    from fedge.runtime.packed import PackedArray
    from fedge.runtime.predictor import OnnxPredictor, median_latency_ms
    from fedge.runtime.preprocess import Normalization

    given = job["inputs"]
    dtype, shape, data = given["dtype"], tuple(given["shape"]), given.get("data")
    is_blank = data is None
    raw = np.zeros(shape, dtype)
    if data is not None:
        raw = PackedArray(dtype, shape, data).unpack()
    normalization = Normalization(tuple(job["mean"]), tuple(job["std"]))
    predictor = OnnxPredictor(Path(job["model"]), normalization)
    size = job["batch_size"] or len(raw)
    parts = [predictor.predict(raw[i : i + size]) for i in range(0, len(raw), size)]
    outputs = PackedArray.pack(np.concatenate(parts)[: 0 if is_blank else None])
    latency_ms = median_latency_ms(predictor, raw[:1], repeats=job["repeats"])
    answer = {"latency_ms": latency_ms, "peak_memory_mb": peak_memory_mb()}
    return json.dumps({"outputs": asdict(outputs), **answer})


def main(path: str) -> int:
    """Answer the job in the file `path`; return the exit status."""
    try:
        answer, status = run(Path(path).read_text(encoding="utf-8")), 0
    except (FedgeError, ValueError, MemoryError) as exc:
        reason = f"{type(exc).__name__}: {exc}"[:500]
        answer, status = json.dumps({"error": reason}), 1
    sys.stdout.write(answer + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
