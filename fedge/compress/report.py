"""What the candidates for a release weigh, and which one is shipped. Pure data."""

from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """One form of the model that could be shipped.

    Attributes:
        name: "float32", "int8", "dynamic", "int4" or "codebook".
        file_bytes: size of the ONNX file.
        packed_bytes: size of what is sent.
        accuracy: what the evaluation returned; larger is better.
        latency_ms: time for one prediction, in milliseconds.
        sparsity: share of zeros among the weights in the file (arrays with two or more
            axes). int8 has more of them: small weights round to zero.
        parameters: float32 values of the network as it is exported.
        macs: multiply-accumulate operations for one example; NaN if not known.
        memory_mb: peak memory of a process that runs it, interpreter included, in MiB;
            NaN if not measured.
        exceeded: budgets that it exceeds, as text.
    """

    name: str
    file_bytes: int
    packed_bytes: int
    accuracy: float
    latency_ms: float
    sparsity: float
    parameters: int = 0
    macs: float = nan
    memory_mb: float = nan
    exceeded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """All candidates, the float32 model first, and the name of the shipped one.

    Attributes:
        candidates: at least one; their names differ.
        chosen: the name of one of them.
        dense_bytes: size of the float32 network as it was built, if channels were
            removed from it since; else 0.
        device: what latencies are translated to; "" for the machine they were measured
            on.
    """

    candidates: tuple[Candidate, ...]
    chosen: str
    dense_bytes: int = 0
    device: str = ""

    def __post_init__(self) -> None:
        names = [candidate.name for candidate in self.candidates]
        if len(set(names)) != len(names) or self.chosen not in names:
            raise ValueError(f"chosen: {self.chosen!r} is not one of {names}")

    @property
    def shipped(self) -> Candidate:
        """The chosen candidate."""
        return next(c for c in self.candidates if c.name == self.chosen)

    @property
    def full_bytes(self) -> int:
        """Size of the float32 network before it was made smaller."""
        return max(self.dense_bytes, self.candidates[0].file_bytes)

    @property
    def ratio(self) -> float:
        """Bytes of the float32 network per byte that is sent."""
        return self.full_bytes / self.shipped.packed_bytes

    @property
    def accuracy_drop(self) -> float:
        """Accuracy of the float32 model minus that of the shipped one."""
        return self.candidates[0].accuracy - self.shipped.accuracy

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values, ready for JSON; unknown numbers None."""
        return {
            "candidates": [_plain(asdict(c)) for c in self.candidates],
            "chosen": self.chosen,
            "full_bytes": self.full_bytes,
            "ratio": self.ratio,
            "accuracy_drop": self.accuracy_drop,
            "device": self.device,
        }

    def table(self) -> str:
        """Return the candidates as lines of text; an arrow marks the shipped one."""
        where = f"  (ms: estimated for {self.device})" if self.device else ""
        head = (
            f"  {'model':<10}{'weights':>9}{'kMACs':>9}{'file kB':>10}{'sent kB':>10}"
            f"{'accuracy':>10}{'ms':>9}{'zeros':>8}{where}"
        )
        return "\n".join([head, *map(self._row, self.candidates)])

    def _row(self, candidate: Candidate) -> str:
        macs = candidate.macs / 1000
        limits = f"  over {'; '.join(candidate.exceeded)}" if candidate.exceeded else ""
        return (
            f"{'>' if candidate.name == self.chosen else ' '} {candidate.name:<10}"
            f"{candidate.parameters:>9}{f'{macs:.0f}' if isfinite(macs) else '-':>9}"
            f"{candidate.file_bytes / 1000:>10.1f}"
            f"{candidate.packed_bytes / 1000:>10.1f}"
            f"{candidate.accuracy:>10.4f}{candidate.latency_ms:>9.3f}"
            f"{candidate.sparsity:>8.1%}{limits}"
        )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value
        for name, value in values.items()
    }
