"""Which network is trained (Hydra group `model`)."""

from dataclasses import dataclass, field
from enum import StrEnum, auto

from fedge.config.ranges import check_below_one, check_within
from fedge.errors import ConfigError

# A server names the architecture: these bound what it can make a device build.
MAX_WIDTH = 16_384
MAX_LAYERS = 64


class ModelName(StrEnum):
    """The reference models."""

    logistic = auto()  # linear; any input but text
    mlp = auto()  # hidden layers; any input but text
    cnn = auto()  # small convolutional net; images
    mobilenet = auto()  # depthwise separable convolutions; images
    mobilenet_v2 = auto()  # inverted residuals; images
    mobilenet_v3 = auto()  # the same with weighed channels and hard-swish; images
    squeezenet = auto()  # fire modules; images
    detector = auto()  # single-shot; finds objects in images
    cnn1d = auto()  # convolutions over time; signals
    gru = auto()  # recurrent; text
    lstm = auto()  # recurrent; text
    transformer = auto()  # causal attention; text


@dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The architecture.

    Attributes:
        name: which reference model; ignored when `builder` is set.
        builder: "package.module:function" of an allowed package (see `run.allow`) for
            a model of one's own; empty for a reference model.
        widths: sizes of the hidden layers: channels of the convolution blocks, units of
            the linear layers (mlp), of the recurrent layers (gru, lstm) or of the
            feed-forward parts (transformer); up to 64, each 1 to 16,384.
        hidden: units of the linear layer before the output (cnn, cnn1d, mobilenet_v3),
            channels of the last convolution before it (mobilenet_v2, detector), or
            size of the token embedding (gru, lstm, transformer), 1 to 16,384.
        dropout: share of activations dropped while training, in [0, 1).
        pool_every: convolutions before each pooling (cnn), 1 to 64.
    """

    name: ModelName = ModelName.cnn
    builder: str = ""
    widths: list[int] = field(default_factory=lambda: [32, 64])
    hidden: int = 128
    dropout: float = 0.0
    pool_every: int = 1

    def __post_init__(self) -> None:
        check_within("model.hidden", self.hidden, 1, MAX_WIDTH)
        check_below_one("model.dropout", self.dropout)
        check_within("model.pool_every", self.pool_every, 1, MAX_LAYERS)
        check_within("number of model.widths", len(self.widths), 0, MAX_LAYERS)
        for width in self.widths:
            check_within("model.widths", width, 1, MAX_WIDTH)
        needs_widths = self.name is not ModelName.logistic and not self.builder
        if needs_widths and not self.widths:
            raise ConfigError(f"model.widths: model {self.name} needs at least one")
