"""How good, fast and large ONNX files are: measured here, on examples held out.

In the runtime that the devices use. What a device would take is an estimate: see
`target`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedge.arrays import AnyArray
from fedge.compress.target import slowdown_of
from fedge.config.data import Task
from fedge.config.fleet import DeviceKind
from fedge.errors import HealthCheckError
from fedge.runtime.predictor import OnnxPredictor, median_latencies_ms
from fedge.runtime.preprocess import Normalization
from fedge.runtime.score import score_outputs
from fedge.runtime.trial import measure_memory

_REPEATS = 200
_TRIAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Judge:
    """Examples that candidates are judged on; its methods are what `compress` takes.

    Attributes:
        raw: shape (n, ...), n >= 1.
        targets: see `fedge.runtime.score.score_outputs`.
        task: what is predicted.
        normalization: from raw values to model inputs.
        unit: outputs are divided by it before they are compared with the targets.
        device: to whose speed latencies are translated; None: this machine's.
        memory_limit_mb: what a process that runs a candidate may have.
    """

    raw: AnyArray
    targets: AnyArray
    task: Task
    normalization: Normalization
    unit: float = 1.0
    device: DeviceKind | None = None
    memory_limit_mb: int = 8192

    def score(self, model: bytes) -> float:
        """Return the score of a file; larger is better.

        Raises:
            ValueError: its outputs do not fit the targets.
        """
        outputs = self._open(model).predict(self.raw)
        return score_outputs(outputs / self.unit, self.targets, self.task).score

    def latencies_ms(self, models: Sequence[bytes]) -> Sequence[float]:
        """Return each file's median milliseconds for one example, run in turns."""
        times = median_latencies_ms(
            [self._open(model) for model in models], self.raw[:1], repeats=_REPEATS
        )
        slowdown = slowdown_of(self.device)
        return [slowdown * milliseconds for milliseconds in times]

    def memory_mb(self, model: bytes) -> float:
        """Return the peak memory of a process that runs a file; NaN if none can."""
        try:
            return measure_memory(
                model,
                self.raw[:1],
                self.normalization,
                limit_mb=self.memory_limit_mb,
                timeout_seconds=_TRIAL_SECONDS,
            )
        except HealthCheckError:
            return float("nan")

    def _open(self, model: bytes) -> OnnxPredictor:
        return OnnxPredictor(model, self.normalization)
