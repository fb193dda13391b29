"""How the global model is shrunk before it is signed (Hydra group `compression`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.fleet import DeviceKind
from fedge.config.ranges import (
    check_at_least,
    check_below_one,
    check_more_than,
    check_within,
)
from fedge.errors import ConfigError


class Quantization(StrEnum):
    """Number format of the shipped weights and activations."""

    none = auto()
    int8 = auto()  # static, per channel, calibrated on examples
    dynamic = auto()  # int8 weights; activations at run time (LSTM, transformer)
    int4 = auto()  # weights of four bits, a scale per channel; computes in float32
    codebook = auto()  # weights from tables of 16 values; computes in float32
    # All forms are built and measured; the first of the good ones is shipped, by:
    smallest = auto()
    fastest = auto()
    most_accurate = auto()


# Forms that devices can round their weights to while they train.
TRAINABLE = (Quantization.int8, Quantization.int4, Quantization.codebook)


class PruneScope(StrEnum):
    """Which weights share one pruning budget."""

    layer = auto()  # each array
    whole = auto()  # the network, but a tenth of each array stays
    group = auto()  # every so many neighbours along the inputs: the N:M pattern


class Calibration(StrEnum):
    """Whose examples fix the activation ranges of int8."""

    central = auto()  # the coordinator's own copy of the training data
    federated = auto()  # the devices' own data: they send ranges and nothing else


class RangeStatistic(StrEnum):
    """How the devices' ranges become one."""

    mean = auto()  # weighted by examples: a plain sum, so it works under masks
    extremes = auto()  # least and largest of all; the server must see each device's


@dataclass(slots=True, kw_only=True)
class CompressionConfig:
    """Pruning during training, then quantization of what is shipped.

    Attributes:
        channel_sparsity: share of each hidden layer's channels or units that is removed
            from the network, in [0, 1); 0 keeps all.
        channel_begin, channel_end: shares of the rounds after which channels are
            removed for the first and for the last time, in [0, 1].
        channel_steps: in how many steps, 1 to 100.
        channel_multiple: a multiple of so many channels is left in each layer, 1 to
            1024; runtimes compute blocks of 8 or 16.
        sparsity: share of the prunable weights that are zero at the end, in [0, 1).
        prune_scope: what loses the same share.
        prune_group: M of the N:M pattern, with prune_scope=group, 2 to 64.
        prune_begin: share of the rounds after which pruning begins, in [0, 1].
        prune_end: share of the rounds at which `sparsity` is reached, in [0, 1].
        quantization: number format of the shipped model.
        calibration: whose examples fix the activation ranges.
        range_statistic: how ranges of devices become one (`calibration=federated`).
        calibration_examples: examples that fix the activation ranges, of the
            coordinator or of each device, >= 1.
        max_accuracy_drop: the release fails if the shipped model scores lower than the
            float32 model by more than this, as a fraction (0.01 = one point).
        min_ratio: the release fails unless the shipped file is at least so many times
            smaller than the float32 ONNX file.
        max_kilobytes: the shipped file may have so many (1000 bytes each); 0 for any.
        device: whose budgets are meant, and whose speed latencies are translated to;
            None for this machine's own speed, and no budgets but those below.
        max_latency_ms: budget for one example; 0 for any, or for 100 with a `device`.
        max_memory_mb: budget for a process that runs the model; 0 for any, or for a
            quarter of the memory of a `device`.
        qat_rounds: in the last so many rounds devices train with weights rounded to the
            form that is shipped; needs `quantization` int8, int4 or codebook.
        qat_rate_factor: learning rates of those rounds are so many times as large, in
            (0, 1]: large steps over a coarse grid undo what they gain.
        distill_epochs: after the last round the pruned model learns for so many passes
            to answer as the best model of the run does, on the coordinator's own
            examples, unlabelled; 0 for none.
        distill_examples: how many of those, >= 1.
        distill_learning_rate: of Adam, > 0.
        zstd_level: effort of the lossless last step, 1 to 22.
    """

    channel_sparsity: float = 0.0
    channel_begin: float = 0.15
    channel_end: float = 0.45
    channel_steps: int = 4
    channel_multiple: int = 8
    sparsity: float = 0.6
    prune_scope: PruneScope = PruneScope.layer
    prune_group: int = 4
    prune_begin: float = 0.3
    prune_end: float = 0.8
    quantization: Quantization = Quantization.int8
    calibration: Calibration = Calibration.central
    range_statistic: RangeStatistic = RangeStatistic.mean
    calibration_examples: int = 256
    max_accuracy_drop: float = 0.01
    min_ratio: float = 1.0
    device: DeviceKind | None = None
    max_kilobytes: float = 0.0
    max_latency_ms: float = 0.0
    max_memory_mb: float = 0.0
    qat_rounds: int = 0
    qat_rate_factor: float = 0.1
    distill_epochs: int = 0
    distill_examples: int = 1024
    distill_learning_rate: float = 0.0005
    zstd_level: int = 19

    def __post_init__(self) -> None:
        check_below_one("compression.channel_sparsity", self.channel_sparsity)
        check_within("compression.channel_begin", self.channel_begin, 0.0, 1.0)
        check_within("compression.channel_end", self.channel_end, 0.0, 1.0)
        check_within("compression.channel_steps", self.channel_steps, 1, 100)
        check_within("compression.channel_multiple", self.channel_multiple, 1, 1024)
        _check_order("channel", self.channel_begin, self.channel_end)
        check_below_one("compression.sparsity", self.sparsity)
        check_within("compression.prune_group", self.prune_group, 2, 64)
        check_within("compression.prune_begin", self.prune_begin, 0.0, 1.0)
        check_within("compression.prune_end", self.prune_end, 0.0, 1.0)
        _check_order("prune", self.prune_begin, self.prune_end)
        check_at_least("compression.calibration_examples", self.calibration_examples, 1)
        check_within("compression.max_accuracy_drop", self.max_accuracy_drop, 0.0, 1.0)
        check_at_least("compression.min_ratio", self.min_ratio, 0.0)
        for name in (
            "max_kilobytes",
            "max_latency_ms",
            "max_memory_mb",
            "qat_rounds",
            "distill_epochs",
        ):
            check_at_least(f"compression.{name}", getattr(self, name), 0)
        self._check_qat()
        check_within("compression.qat_rate_factor", self.qat_rate_factor, 1e-6, 1.0)
        check_at_least("compression.distill_examples", self.distill_examples, 1)
        check_more_than(
            "compression.distill_learning_rate", self.distill_learning_rate, 0.0
        )
        check_within("compression.zstd_level", self.zstd_level, 1, 22)

    def _check_qat(self) -> None:
        if self.qat_rounds > 0 and self.quantization not in TRAINABLE:
            raise ConfigError(
                f"compression.qat_rounds: {self.qat_rounds}, but "
                f"compression.quantization={self.quantization} is no form to train "
                f"for; use {', '.join(TRAINABLE)}, or qat_rounds=0"
            )


def _check_order(name: str, begin: float, end: float) -> None:
    if end < begin:
        raise ConfigError(
            f"compression.{name}_end: {end} is before compression.{name}_begin: {begin}"
        )
