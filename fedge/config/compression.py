"""How the global model is shrunk before it is signed (Hydra group `compression`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.ranges import check_at_least, check_below_one, check_within
from fedge.errors import ConfigError


class Quantization(StrEnum):
    """Number format of the shipped weights and activations."""

    none = auto()
    int8 = auto()  # static, per channel, calibrated on examples
    codebook = auto()  # weights from tables of 16 values; computes in float32
    smallest = auto()  # all are built and measured; the smallest good one is shipped


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
        zstd_level: effort of the lossless last step, 1 to 22.
    """

    channel_sparsity: float = 0.0
    channel_begin: float = 0.15
    channel_end: float = 0.45
    channel_steps: int = 4
    channel_multiple: int = 8
    sparsity: float = 0.6
    prune_begin: float = 0.3
    prune_end: float = 0.8
    quantization: Quantization = Quantization.int8
    calibration: Calibration = Calibration.central
    range_statistic: RangeStatistic = RangeStatistic.mean
    calibration_examples: int = 256
    max_accuracy_drop: float = 0.01
    min_ratio: float = 1.0
    zstd_level: int = 19

    def __post_init__(self) -> None:
        check_below_one("compression.channel_sparsity", self.channel_sparsity)
        check_within("compression.channel_begin", self.channel_begin, 0.0, 1.0)
        check_within("compression.channel_end", self.channel_end, 0.0, 1.0)
        check_within("compression.channel_steps", self.channel_steps, 1, 100)
        check_within("compression.channel_multiple", self.channel_multiple, 1, 1024)
        _check_order("channel", self.channel_begin, self.channel_end)
        check_below_one("compression.sparsity", self.sparsity)
        check_within("compression.prune_begin", self.prune_begin, 0.0, 1.0)
        check_within("compression.prune_end", self.prune_end, 0.0, 1.0)
        _check_order("prune", self.prune_begin, self.prune_end)
        check_at_least("compression.calibration_examples", self.calibration_examples, 1)
        check_within("compression.max_accuracy_drop", self.max_accuracy_drop, 0.0, 1.0)
        check_at_least("compression.min_ratio", self.min_ratio, 0.0)
        check_within("compression.zstd_level", self.zstd_level, 1, 22)


def _check_order(name: str, begin: float, end: float) -> None:
    if end < begin:
        raise ConfigError(
            f"compression.{name}_end: {end} is before compression.{name}_begin: {begin}"
        )
