"""Which network is trained (Hydra group `model`)."""

from dataclasses import dataclass, field
from enum import StrEnum, auto

from fedge.config.ranges import check_at_least, check_below_one
from fedge.errors import ConfigError


class ModelName(StrEnum):
    """The reference models."""

    logistic = auto()  # linear; any input but text
    mlp = auto()  # hidden layers; any input but text
    cnn = auto()  # small convolutional net; images
    mobilenet = auto()  # depthwise separable convolutions; images
    cnn1d = auto()  # convolutions over time; signals
    gru = auto()  # recurrent; text


@dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The architecture.

    Attributes:
        name: which reference model; ignored when `builder` is set.
        builder: "package.module:function" of an allowed package (see `run.allow`) for
            a model of one's own; empty for a reference model.
        widths: sizes of the hidden layers: channels of the convolution blocks, units of
            the linear layers (mlp) or of the recurrent layers (gru), each >= 1.
        hidden: units of the linear layer before the output (cnn, cnn1d) or of the
            token embedding (gru), >= 1.
        dropout: share of activations dropped while training, in [0, 1).
    """

    name: ModelName = ModelName.cnn
    builder: str = ""
    widths: list[int] = field(default_factory=lambda: [32, 64])
    hidden: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_at_least("model.hidden", self.hidden, 1)
        check_below_one("model.dropout", self.dropout)
        if any(width < 1 for width in self.widths):
            raise ConfigError(f"model.widths: {self.widths} must all be at least 1")
        needs_widths = self.name is not ModelName.logistic and not self.builder
        if needs_widths and not self.widths:
            raise ConfigError(f"model.widths: model {self.name} needs at least one")
