"""Which training example belongs to which simulated client.

`dirichlet` is Flower Datasets' partitioner. The others are written here in numpy, each
for the reason given at its function. Nothing is downloaded and no
file is written; importing Flower Datasets imports matplotlib, which keeps its own font
cache (environment variable MPLCONFIGDIR).
"""

import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, assert_never, overload

import numpy as np

from fedge.arrays import Float64, Int64
from fedge.config import PartitionConfig, PartitionKind, Task
from fedge.data.dataset import FederatedData
from fedge.errors import ConfigError
from fedge.seeding import Purpose, generator

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

# Flower gives up after eleven draws; so many seeds are tried before we do.
DIRICHLET_SEEDS = 10
DRAWS_PER_SEED = 11
# The largest `quantity` client has so many times the examples of the smallest one
# (beyond min_examples).
QUANTITY_RANGE = 100.0


def partition(
    data: FederatedData, config: PartitionConfig, *, num_clients: int, seed: int
) -> Sequence[Int64]:
    """Return the positions of each client's training examples, ascending.

    Guarantee: no example has two clients; all examples have one (`natural` with fewer
    clients than owners: all examples of the chosen owners); every client has at least
    one, under `dirichlet` and `quantity` at least `min_examples`; equal arguments,
    equal answer. Under `bootstrap` clients share examples, and a client's are drawn
    when they are asked for, so that a million clients cost nothing.

    Args:
        data: what to spread.
        config: the rule.
        num_clients: how many clients, >= 1 (`fleet.num_devices`).
        seed: of everything random in here, >= 0.

    Returns:
        One int64 array per client.

    Raises:
        ConfigError: more clients than examples or owners, a rule that needs class
            labels or owners which the data has not, or too few examples each.
    """
    count = len(data.train)
    if config.kind is PartitionKind.bootstrap:
        if num_clients < 1:
            raise ConfigError(f"fleet.num_devices: {num_clients} must be at least 1")
        return _Bootstrap(count, config.examples_per_client, num_clients, seed)
    if not 1 <= num_clients <= count:
        raise ConfigError(
            f"fleet.num_devices: {num_clients} not in [1, {count}], the number of "
            f"training examples of {data.info.name}; with partition=bootstrap devices "
            f"may share examples"
        )
    match config.kind:
        case PartitionKind.iid:
            parts = _iid(count, num_clients, seed)
        case PartitionKind.dirichlet:
            parts = _dirichlet(_class_labels(data, config), config, num_clients, seed)
        case PartitionKind.shards:
            parts = _shards(_class_labels(data, config), config, num_clients, seed)
        case PartitionKind.natural:
            parts = _natural(data, num_clients, seed)
        case PartitionKind.quantity:
            parts = _quantity(count, config, num_clients, seed)
        case PartitionKind.bootstrap:
            raise AssertionError  # above
        case _:
            assert_never(config.kind)
    return [np.sort(part) for part in parts]


def _class_labels(data: FederatedData, config: PartitionConfig) -> Int64:
    if data.info.task is not Task.classification:
        natural = ", natural" if len(data.owners) else ""
        raise ConfigError(
            f"partition.kind: {config.kind} needs class labels, which data.task="
            f"{data.info.task} has not; use iid, quantity{natural}"
        )
    return data.train.targets


def _check_room(count: int, config: PartitionConfig, num_clients: int) -> None:
    if num_clients * config.min_examples > count:
        raise ConfigError(
            f"partition.min_examples: {config.min_examples} times {num_clients} "
            f"clients (fleet.num_devices) is more than {count} examples; lower one of "
            f"them"
        )


def _iid(count: int, num_clients: int, seed: int) -> list[Int64]:
    """Cut a random order into equal parts.

    Not Flower's IidPartitioner: it cuts without shuffling, and needs milliseconds for
    each client.
    """
    order = np.random.default_rng(seed).permutation(count)
    return np.array_split(order, num_clients)


class _Bootstrap(Sequence[Int64]):
    """Each client's examples, drawn with replacement from a generator of its own.

    Source: the bootstrap, Efron (1979).
    """

    def __init__(self, count: int, size: int, num_clients: int, seed: int) -> None:
        self._count, self._size = count, size
        self._num_clients, self._seed = num_clients, seed

    def __len__(self) -> int:
        return self._num_clients

    @overload
    def __getitem__(self, index: int) -> Int64: ...

    @overload
    def __getitem__(self, index: slice) -> list[Int64]: ...

    def __getitem__(self, index: int | slice) -> Int64 | list[Int64]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < self._num_clients:
            raise IndexError(index)
        rng = generator(self._seed, Purpose.PARTITION, index)
        drawn: Int64 = rng.integers(0, self._count, self._size)
        return np.sort(drawn)


def _dirichlet(
    labels: Int64, config: PartitionConfig, num_clients: int, seed: int
) -> list[Int64]:
    _check_room(len(labels), config, num_clients)
    more_seeds = np.random.SeedSequence(seed).generate_state(DIRICHLET_SEEDS - 1)
    for each_seed in (seed, *more_seeds.tolist()):
        partitioner = _flower_partitioners().DirichletPartitioner(
            num_partitions=num_clients,
            partition_by="label",
            alpha=config.alpha,
            min_partition_size=config.min_examples,
            seed=each_seed,
        )
        try:
            return _flower_parts(partitioner, labels)
        except ValueError as exc:
            if "max number of attempts" not in str(exc):
                raise ConfigError(
                    f"partition.alpha: {config.alpha}: Flower Datasets refuses: {exc}"
                ) from exc
    raise ConfigError(
        f"partition.min_examples: {DIRICHLET_SEEDS * DRAWS_PER_SEED} draws with "
        f"partition.alpha={config.alpha} left some of {num_clients} clients with fewer "
        f"than {config.min_examples} of {len(labels)} examples; lower "
        f"partition.min_examples or fleet.num_devices, or raise partition.alpha"
    )


def _flower_partitioners() -> ModuleType:
    # Imported when asked for: it takes two seconds, and devices do not have it.
    try:
        from flwr_datasets import partitioner
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"partition.kind: dirichlet needs the package {exc.name!r}; install "
            f"fedge[simulation], or use iid, shards, natural or quantity"
        ) from exc
    module: ModuleType = partitioner
    return module


def _flower_parts(partitioner: "Partitioner", labels: Int64) -> list[Int64]:
    from datasets import Dataset

    columns = {"label": labels, "index": np.arange(len(labels))}
    partitioner.dataset = Dataset.from_dict(columns)
    with warnings.catch_warnings():
        # One warning for each repeated draw; that it draws again is our setting.
        warnings.filterwarnings("ignore", message="The specified min_partition_size")
        return [
            np.asarray(partitioner.load_partition(index)["index"], np.int64)
            for index in range(partitioner.num_partitions)
        ]


def _shards(
    labels: Int64, config: PartitionConfig, num_clients: int, seed: int
) -> list[Int64]:
    """Deal single-label shards, so a client has at most `shards_per_client` labels.

    Not Flower's ShardPartitioner: with a number of shards per client it leaves out
    what does not fill a shard, or whole shards at random, and its shards straddle
    labels unless these are equally frequent. McMahan et al., AISTATS 2017, section 3,
    is the case of equally frequent labels.
    """
    rng = np.random.default_rng(seed)
    num_shards = num_clients * config.shards_per_client
    classes, sizes = np.unique(labels, return_counts=True)
    if not len(classes) <= num_shards <= len(labels):
        raise ConfigError(
            f"partition.shards_per_client: {config.shards_per_client} times "
            f"{num_clients} clients (fleet.num_devices) gives {num_shards} shards; "
            f"need one for each of {len(classes)} classes and at most {len(labels)}, "
            f"the number of examples"
        )
    shards: list[Int64] = []
    for label, num in zip(classes, _shards_by_class(sizes, num_shards), strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        shards.extend(np.array_split(members, num))
    deal = rng.permutation(num_shards).reshape(num_clients, -1)
    return [np.concatenate([shards[index] for index in row]) for row in deal]


def _shards_by_class(sizes: Int64, num_shards: int) -> Int64:
    """Return shards per class: one each, then one more where shards are largest."""
    counts: Int64 = np.ones(len(sizes), np.int64)
    for _ in range(num_shards - len(sizes)):
        counts[np.argmax(sizes / counts)] += 1
    return counts


def _natural(data: FederatedData, num_clients: int, seed: int) -> list[Int64]:
    """Give every client one owner; fewer clients than owners: a random choice of them.

    Not Flower's NaturalIdPartitioner: it draws a progress bar on the terminal that
    cannot be switched off, and takes all owners or none.
    """
    owners = np.unique(data.owners)
    if len(owners) == 0:
        raise ConfigError(
            f"partition.kind: natural needs owners, which {data.info.name} has not; "
            f"use another partition"
        )
    if num_clients > len(owners):
        raise ConfigError(
            f"fleet.num_devices: {num_clients}, but {data.info.name} has "
            f"{len(owners)} owners; set at most that, or 0 for all of them"
        )
    chosen = np.random.default_rng(seed).permutation(owners)[:num_clients]
    return [np.flatnonzero(data.owners == owner) for owner in np.sort(chosen)]


def _quantity(
    count: int, config: PartitionConfig, num_clients: int, seed: int
) -> list[Int64]:
    """Give client 0 the most examples and each next one fewer by the same factor.

    Not Flower's ExponentialPartitioner: from client to client its sizes grow by the
    factor e, so beyond about ten clients some get nothing, which it refuses; it does
    not shuffle, and knows no smallest size.
    """
    _check_room(count, config, num_clients)
    spare = count - num_clients * config.min_examples
    order = np.random.default_rng(seed).permutation(count)
    sizes = config.min_examples + _falling_sizes(num_clients, spare)
    return np.split(order, np.cumsum(sizes)[:-1])


def _falling_sizes(num_clients: int, total: int) -> Int64:
    """Return non-increasing sizes that add up to `total`; what is left goes first."""
    exponents = np.linspace(0.0, 1.0, num_clients)
    weights: Float64 = QUANTITY_RANGE**-exponents
    sizes: Int64 = np.floor(weights / weights.sum() * total).astype(np.int64)
    sizes[: total - sizes.sum()] += 1
    return sizes
