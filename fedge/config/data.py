"""Which data the federation learns from (Hydra group `data`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.errors import ConfigError

# Members are lower case because they are what a user types: `data.task=regression`.


class DataKind(StrEnum):
    """The form of one example; decides which models and augmentations fit."""

    image = auto()  # (channels, height, width)
    signal = auto()  # (channels, time)
    table = auto()  # (columns,)
    text = auto()  # (time,) token ids


class Task(StrEnum):
    """What is predicted."""

    classification = auto()  # one class per example
    regression = auto()  # one standardized number per example
    next_token = auto()  # one token per position
    detection = auto()  # boxes and classes of the objects in an image


@dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where examples come from and what they look like.

    Attributes:
        name: what reports call the data set.
        loader: a built-in loader ("digits", "fashion_mnist", "uci_har", "shakespeare",
            "heart_disease", "diabetes", "shapes"), or "package.module:function" of an
            allowed package (see `run.allow`) for a data set of one's own.
        root: folder with the files; empty for data that ships with a dependency. A
            device uses its own folder (node config `data-root`, or the environment
            variable FEDGE_DATA_ROOT), never one that the server names.
        kind: the form of one example.
        task: what is predicted.
        natural_clients: whether the data says whose each example is.
        max_examples: use only the first so many training examples; 0 means all.
    """

    name: str = "digits"
    loader: str = "digits"
    root: str = ""
    kind: DataKind = DataKind.image
    task: Task = Task.classification
    natural_clients: bool = False
    max_examples: int = 0

    def __post_init__(self) -> None:
        if not self.loader:
            raise ConfigError("data.loader: must not be empty")
        if self.max_examples < 0:
            raise ConfigError(
                f"data.max_examples: {self.max_examples} must be at least 0 (0: all)"
            )
