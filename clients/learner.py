"""A task made ready to be trained with PyTorch, kept between messages."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import nn

from clients.local_task import LocalTask, local_task
from fedge.arrays import ModelSpec
from fedge.config.experiment import ClientTask
from fedge.data.dataset import DataInfo, Examples, FederatedData
from fedge.models.build import build_model
from fedge.models.resize import resize
from fedge.models.vector import spec_of


@dataclass(frozen=True, slots=True)
class Learner:
    """What every message of one task needs.

    Attributes:
        local: the task and its data.
        model: a network to train in; its weights are overwritten by every message.
        spec: how its parameters lie in the flat vector.
    """

    local: LocalTask
    model: nn.Module
    spec: ModelSpec

    @property
    def task(self) -> ClientTask:
        """What the server asked for, checked."""
        return self.local.task

    @property
    def data(self) -> FederatedData:
        """The data set."""
        return self.local.data

    @property
    def info(self) -> DataInfo:
        """What the data looks like."""
        return self.local.info

    def examples(self, partition_id: int) -> Examples:
        """Return a copy of the examples of one device."""
        return self.local.examples(partition_id)


@lru_cache(maxsize=4)  # as `local_task`
def learner_of(task: str, data_root: Path | None, allow: tuple[str, ...]) -> Learner:
    """Return the learner of a task (JSON of a `ClientTask`).

    Raises:
        ConfigError: the task is malformed or its parts do not fit.
        DataError: the data is missing or damaged.
    """
    local = local_task(task, data_root, allow)
    settings, info = local.task, local.info
    model = build_model(settings.model, info, seed=settings.seed, allow=allow)
    if settings.shapes:
        shapes = {name: tuple(shape) for name, shape in settings.shapes.items()}
        model = resize(model, shapes, info)
    return Learner(local, model, spec_of(model))
