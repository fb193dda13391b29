"""A task made ready on a device: its data and its model, kept between messages."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import nn

from fedge.arrays import Int64, ModelSpec
from fedge.config.experiment import ClientTask, from_json
from fedge.data.client import client_part
from fedge.data.dataset import DataInfo, Examples, FederatedData
from fedge.data.load import load
from fedge.errors import PeerError
from fedge.models.build import build_model
from fedge.models.resize import resize
from fedge.models.vector import spec_of


@dataclass(frozen=True, slots=True)
class Learner:
    """What every message of one task needs.

    Attributes:
        task: what the server asked for, checked.
        model: a network to train in; its weights are overwritten by every message.
        spec: how its parameters lie in the flat vector.
        data: the data set.
    """

    task: ClientTask
    model: nn.Module
    spec: ModelSpec
    data: FederatedData

    @property
    def info(self) -> DataInfo:
        """What the data looks like."""
        return self.data.info

    def examples(self, partition_id: int) -> Examples:
        """Return a copy of the examples of one device."""
        return self.data.train.take(self.part(partition_id))

    def part(self, partition_id: int) -> Int64:
        """Return which of the training examples are those of one device."""
        return client_part(
            self.data,
            self.task.partition,
            num_clients=self.task.num_devices,
            seed=self.task.seed,
            client_index=partition_id,
        )

    def check_spec(self, digest: str) -> None:
        """Raise PeerError if the server lays its vector out by another spec."""
        if digest != self.spec.digest:
            raise PeerError(
                "the server's model is laid out differently from this device's; "
                "do both run the same version of fedge?"
            )


# One process serves all simulated devices, and they share one task: a few entries do.
@lru_cache(maxsize=4)
def learner_of(task: str, data_root: Path | None, allow: tuple[str, ...]) -> Learner:
    """Return the learner of a task (JSON of a `ClientTask`).

    Raises:
        ConfigError: the task is malformed or its parts do not fit.
        DataError: the data is missing or damaged.
    """
    settings = from_json(ClientTask, task)
    data = load(settings.data, root=data_root, allow=allow)
    model = build_model(settings.model, data.info, seed=settings.seed, allow=allow)
    if settings.shapes:
        shapes = {name: tuple(shape) for name, shape in settings.shapes.items()}
        model = resize(model, shapes, data.info)
    return Learner(settings, model, spec_of(model), data)
