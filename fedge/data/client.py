"""The examples of one simulated client; the split is computed once per process."""

import threading
from collections.abc import Sequence
from functools import lru_cache

from fedge.arrays import Int64
from fedge.config import PartitionConfig, PartitionKind
from fedge.data.dataset import Examples, FederatedData
from fedge.data.partition import partition
from fedge.errors import ConfigError

# Simulated devices may run in threads; without it each would compute the same split.
_lock = threading.Lock()


class _SameData:
    """Makes data a cache key that is equal to itself only.

    The cache holds the key and the key the data, so no other data can take its
    identity while the entry lives.
    """

    def __init__(self, data: FederatedData) -> None:
        self.data = data

    def __hash__(self) -> int:
        return id(self.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameData) and self.data is other.data


def client_part(
    data: FederatedData,
    config: PartitionConfig,
    *,
    num_clients: int,
    seed: int,
    client_index: int,
) -> Int64:
    """Return which training examples are one client's, int64 (n,).

    Guarantee: over all client indices, the parts that `partition` returns.

    Args:
        data: as `load` returns it; the same object each time, to find the split again.
        config: the rule.
        num_clients: how many clients share the data (`fleet.num_devices`).
        seed: of the split (`run.seed`).
        client_index: which client, 0 .. num_clients - 1.

    Raises:
        ConfigError: no such client, or a split that cannot be made.
    """
    if not 0 <= client_index < num_clients:
        raise ConfigError(
            f"client_index: {client_index} not in [0, {num_clients}) "
            f"(fleet.num_devices)"
        )
    with _lock:
        parts = _parts(
            _SameData(data),
            kind=config.kind,
            alpha=config.alpha,
            shards_per_client=config.shards_per_client,
            min_examples=config.min_examples,
            examples_per_client=config.examples_per_client,
            num_clients=num_clients,
            seed=seed,
        )
    return parts[client_index]


def client_examples(
    data: FederatedData,
    config: PartitionConfig,
    *,
    num_clients: int,
    seed: int,
    client_index: int,
) -> Examples:
    """Return a writable copy of one client's training examples; see `client_part`."""
    part = client_part(
        data, config, num_clients=num_clients, seed=seed, client_index=client_index
    )
    return data.train.take(part)


@lru_cache(maxsize=2)
def _parts(
    key: _SameData,
    *,
    kind: PartitionKind,
    alpha: float,
    shards_per_client: int,
    min_examples: int,
    examples_per_client: int,
    num_clients: int,
    seed: int,
) -> Sequence[Int64]:
    config = PartitionConfig(
        kind=kind,
        alpha=alpha,
        shards_per_client=shards_per_client,
        min_examples=min_examples,
        examples_per_client=examples_per_client,
    )
    return partition(key.data, config, num_clients=num_clients, seed=seed)
