"""A task and the data it is about, made ready on a device; no PyTorch."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedge.arrays import Int64
from fedge.config.experiment import ClientTask, from_json
from fedge.data.client import client_part
from fedge.data.dataset import DataInfo, Examples, FederatedData
from fedge.data.load import load
from fedge.errors import PeerError
from fedge.seeding import Purpose, generator


@dataclass(frozen=True, slots=True)
class LocalTask:
    """What every message of one task needs, whatever computes it.

    Attributes:
        task: what the server asked for, checked.
        data: the data set.
    """

    task: ClientTask
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

    def rng(self, round_index: int, partition_id: int) -> np.random.Generator:
        """Return the randomness of one device's training in one round."""
        place = (round_index, partition_id)
        return generator(self.task.seed, Purpose.TRAIN, *place)


def check_spec(digest: str, own: str) -> None:
    """Raise PeerError if the server lays its vector out by another spec."""
    if digest != own:
        raise PeerError(
            "the server's model is laid out differently from this device's; "
            "do both run the same version of fedge?"
        )


# One process serves all simulated devices, and they share one task: a few entries do.
@lru_cache(maxsize=4)
def local_task(task: str, data_root: Path | None, allow: tuple[str, ...]) -> LocalTask:
    """Return a task (JSON of a `ClientTask`) and its data.

    Raises:
        ConfigError: the task is malformed or its parts do not fit.
        DataError: the data is missing or damaged.
    """
    settings = from_json(ClientTask, task)
    return LocalTask(settings, load(settings.data, root=data_root, allow=allow))
