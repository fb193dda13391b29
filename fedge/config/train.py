"""Local training on a device (Hydra group `train`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.ranges import (
    check_at_least,
    check_below_one,
    check_more_than,
    check_within,
)
from fedge.errors import ConfigError

# A server says how long a device trains: these bound what it can ask for.
MAX_EPOCHS = 1_000
MAX_STEPS = 1_000_000
MAX_BATCH_SIZE = 65_536


class Backend(StrEnum):
    """What computes the training on a device."""

    torch = auto()
    onnx = auto()  # a graph that the coordinator sends; no PyTorch on the device


class OptimizerName(StrEnum):
    """The local optimizer."""

    sgd = auto()
    adam = auto()


class ScheduleKind(StrEnum):
    """How the local learning rate changes over the rounds."""

    constant = auto()
    cosine = auto()  # half a cosine from the full rate down to final_factor
    step = auto()  # times decay_factor every decay_rounds rounds
    exponential = auto()  # times decay_factor every round


class Precision(StrEnum):
    """Arithmetic of the forward and backward pass."""

    float32 = auto()
    mixed = auto()  # 16 bit where the device has it, float32 where it does not


class Augmentation(StrEnum):
    """Random changes to training examples, made on the device."""

    none = auto()
    shift = auto()  # images: by up to a tenth of the side; signals: along time
    flip = auto()  # images: left-right
    noise = auto()  # anything but text: Gaussian, a tenth of a standard deviation


@dataclass(slots=True, kw_only=True)
class TrainConfig:
    """One device's work in one round.

    Attributes:
        optimizer: local optimizer; starts afresh in every round.
        learning_rate: local learning rate before the schedule, > 0.
        momentum: of sgd, in [0, 1).
        weight_decay: L2 penalty, >= 0.
        epochs: passes over the local data, 1 to 1,000; ignored when steps > 0.
        steps: optimizer steps, up to a million; 0 means go by epochs.
        batch_size: examples in a step, 1 to 65,536.
        clip_norm: gradients are scaled down to this L2 norm; 0 means never.
        precision: float32, or mixed where the device supports it.
        schedule: how the learning rate changes over the rounds.
        decay_factor: factor of step and exponential, in (0, 1].
        decay_rounds: rounds between two steps of the step schedule, >= 1.
        final_factor: where the cosine schedule ends, as a share of the full rate.
        augment: random changes to the training examples.
        backend: onnx also offers a training graph to devices without PyTorch; torch
            does not (docs/training-without-torch.md).
    """

    optimizer: OptimizerName = OptimizerName.sgd
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    epochs: int = 2
    steps: int = 0
    batch_size: int = 32
    clip_norm: float = 0.0
    precision: Precision = Precision.float32
    schedule: ScheduleKind = ScheduleKind.constant
    decay_factor: float = 0.99
    decay_rounds: int = 10
    final_factor: float = 0.1
    augment: Augmentation = Augmentation.none
    backend: Backend = Backend.torch

    def __post_init__(self) -> None:
        check_more_than("train.learning_rate", self.learning_rate, 0.0)
        check_below_one("train.momentum", self.momentum)
        check_at_least("train.weight_decay", self.weight_decay, 0.0)
        check_within("train.epochs", self.epochs, 1, MAX_EPOCHS)
        check_within("train.steps", self.steps, 0, MAX_STEPS)
        check_within("train.batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        check_at_least("train.clip_norm", self.clip_norm, 0.0)
        check_at_least("train.decay_rounds", self.decay_rounds, 1)
        if not 0.0 < self.decay_factor <= 1.0:
            raise ConfigError(f"train.decay_factor: {self.decay_factor} not in (0, 1]")
        if not 0.0 <= self.final_factor <= 1.0:
            raise ConfigError(f"train.final_factor: {self.final_factor} not in [0, 1]")
