from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import Int64
from fedge.config import PartitionConfig, PartitionKind, Task
from fedge.data.dataset import FederatedData
from fedge.data.partition import partition
from fedge.errors import ConfigError

MakeData = Callable[..., FederatedData]
# Ten unequal classes, sorted, and 30 owners: the hard case for every rule.
LABELS = np.repeat(np.arange(10), np.arange(20, 120, 10)).tolist()
OWNERS = (np.arange(len(LABELS)) % 30).tolist()
NUM_CLIENTS = st.integers(10, 30)
# Under `bootstrap` clients share examples.
SPLITS = [kind for kind in PartitionKind if kind is not PartitionKind.bootstrap]
SEEDS = st.integers(0, 2**63)


def _split(
    data: FederatedData, config: PartitionConfig, num_clients: int, seed: int = 0
) -> Sequence[Int64]:
    return partition(data, config, num_clients=num_clients, seed=seed)


def _lists(parts: Sequence[Int64]) -> list[list[int]]:
    return [part.tolist() for part in parts]


def _config(kind: PartitionKind, min_examples: int = 3) -> PartitionConfig:
    return PartitionConfig(kind=kind, min_examples=min_examples)


@pytest.mark.parametrize("kind", SPLITS)
@settings(deadline=None, max_examples=8)
@given(num_clients=NUM_CLIENTS, seed=SEEDS)
def test_no_example_has_two_clients_and_each_client_has_one(
    kind: PartitionKind, num_clients: int, seed: int, make_data: MakeData
) -> None:
    parts = _split(make_data(LABELS, OWNERS), _config(kind), num_clients, seed)
    together = np.concatenate(parts)
    assert len(parts) == num_clients
    assert len(np.unique(together)) == len(together)
    assert min(len(part) for part in parts) >= 1
    assert all((np.diff(part) > 0).all() and part.dtype == np.int64 for part in parts)


@pytest.mark.parametrize("kind", SPLITS)
def test_every_example_has_a_client(kind: PartitionKind, make_data: MakeData) -> None:
    parts = _split(make_data(LABELS, OWNERS), _config(kind), 30)
    np.testing.assert_array_equal(
        np.sort(np.concatenate(parts)), np.arange(len(LABELS))
    )


@pytest.mark.parametrize("kind", SPLITS)
def test_the_seed_alone_decides(kind: PartitionKind, make_data: MakeData) -> None:
    data, config = make_data(LABELS, OWNERS), _config(kind)
    first = _split(data, config, 12, seed=1)
    assert _lists(first) == _lists(_split(data, config, 12, seed=1))
    assert _lists(first) != _lists(_split(data, config, 12, seed=2))


def test_the_global_random_state_is_neither_read_nor_changed(
    make_data: MakeData,
) -> None:
    data, config = make_data(LABELS), _config(PartitionKind.dirichlet)
    before = np.random.get_state()[1].copy()  # type: ignore[index]  # a tuple here
    _split(data, config, 12)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # same


def test_iid_sizes_differ_by_one_and_classes_are_mixed(make_data: MakeData) -> None:
    data = make_data(LABELS)
    parts = _split(data, _config(PartitionKind.iid), 7)
    assert {len(part) for part in parts} == {92, 93}
    assert all(len(np.unique(data.train.targets[part])) >= 8 for part in parts)


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS, min_examples=st.integers(1, 15))
def test_dirichlet_clients_get_their_smallest_number(
    seed: int, min_examples: int, make_data: MakeData
) -> None:
    config = _config(PartitionKind.dirichlet, min_examples)
    parts = _split(make_data(LABELS), config, 12, seed)
    assert min(len(part) for part in parts) >= min_examples


def test_dirichlet_gives_what_flowers_partitioner_gives(make_data: MakeData) -> None:
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner

    theirs = DirichletPartitioner(5, "label", alpha=1.0, min_partition_size=3, seed=7)
    theirs.dataset = Dataset.from_dict(
        {"label": LABELS, "row": list(range(len(LABELS)))}
    )
    ours = _split(
        make_data(LABELS), PartitionConfig(alpha=1.0, min_examples=3), 5, seed=7
    )
    expected = [sorted(theirs.load_partition(index)["row"]) for index in range(5)]
    assert _lists(ours) == expected


def _label_skew(data: FederatedData, parts: Sequence[Int64]) -> float:
    """Return the mean share of a client's most frequent label."""
    counts = [np.bincount(data.train.targets[part]) for part in parts]
    return float(np.mean([count.max() / count.sum() for count in counts]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_label_skew_grows_as_alpha_falls(seed: int, make_data: MakeData) -> None:
    data = make_data(list(range(10)) * 100)
    skews = [
        _label_skew(
            data,
            _split(data, PartitionConfig(alpha=alpha, min_examples=1), 10, seed),
        )
        for alpha in (0.05, 0.5, 5.0, 500.0)
    ]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.6
    assert skews[-1] < 0.15


def test_dirichlet_that_cannot_work_names_the_settings_to_change(
    make_data: MakeData,
) -> None:
    data = make_data([0, 1] * 50)
    too_skewed = PartitionConfig(alpha=0.001, min_examples=5)
    with pytest.raises(ConfigError, match=r"min_examples.*alpha=0.001.*num_devices"):
        _split(data, too_skewed, 10)
    with pytest.raises(ConfigError, match=r"min_examples: 11 times 10"):
        _split(data, _config(PartitionKind.dirichlet, 11), 10)


def test_one_client_gets_everything(make_data: MakeData) -> None:
    data = make_data([0, 1, 1, 0, 1, 1], owners=[0] * 6)
    for kind in SPLITS:
        config = PartitionConfig(kind=kind, min_examples=2, shards_per_client=2)
        assert _lists(_split(data, config, 1)) == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("shards_per_client", [1, 2, 3])
@settings(deadline=None, max_examples=10)
@given(num_clients=NUM_CLIENTS, seed=SEEDS)
def test_a_client_has_at_most_as_many_labels_as_shards(
    shards_per_client: int, num_clients: int, seed: int, make_data: MakeData
) -> None:
    data = make_data(LABELS)
    config = PartitionConfig(
        kind=PartitionKind.shards, shards_per_client=shards_per_client
    )
    parts = _split(data, config, num_clients, seed)
    labels = [np.unique(data.train.targets[part]) for part in parts]
    assert max(len(each) for each in labels) <= shards_per_client


def test_equally_frequent_labels_give_equal_shards(make_data: MakeData) -> None:
    data = make_data(list(range(10)) * 60)
    config = PartitionConfig(kind=PartitionKind.shards, shards_per_client=2)
    assert {len(part) for part in _split(data, config, 20)} == {30}


def test_two_clients_with_one_shard_each_get_a_class_each(make_data: MakeData) -> None:
    config = PartitionConfig(kind=PartitionKind.shards, shards_per_client=1)
    parts = _lists(_split(make_data([0, 1, 0, 1, 1]), config, 2))
    assert sorted(parts) == [[0, 2], [1, 3, 4]]


def test_a_wrong_number_of_shards_names_the_settings(make_data: MakeData) -> None:
    data = make_data([0, 1, 2, 3] * 5)
    for shards_per_client, num_clients in ((1, 3), (7, 3)):
        config = PartitionConfig(
            kind=PartitionKind.shards, shards_per_client=shards_per_client
        )
        with pytest.raises(ConfigError, match=r"shards_per_client.*num_devices"):
            _split(data, config, num_clients)


def test_all_natural_clients_are_the_owners_in_order(make_data: MakeData) -> None:
    data = make_data([0, 1, 0, 1, 0], owners=[2, 0, 1, 0, 2])
    parts = _split(data, _config(PartitionKind.natural), 3)
    assert _lists(parts) == [[1, 3], [2], [0, 4]]


@settings(deadline=None, max_examples=10)
@given(num_clients=st.integers(1, 30), seed=SEEDS)
def test_a_natural_client_has_all_of_one_owner_and_nothing_else(
    num_clients: int, seed: int, make_data: MakeData
) -> None:
    data = make_data(LABELS, OWNERS)
    parts = _split(data, _config(PartitionKind.natural), num_clients, seed)
    sizes = np.bincount(data.owners)
    for part in parts:
        owner = np.unique(data.owners[part])
        assert len(owner) == 1
        assert len(part) == sizes[owner[0]]
    assert len({data.owners[part[0]] for part in parts}) == num_clients


def test_natural_needs_owners_and_enough_of_them(make_data: MakeData) -> None:
    config = _config(PartitionKind.natural)
    with pytest.raises(ConfigError, match="natural needs owners"):
        _split(make_data([0, 1]), config, 1)
    with pytest.raises(ConfigError, match=r"fleet\.num_devices: 3.*2 owners"):
        _split(make_data([0, 1, 0], owners=[0, 1, 1]), config, 3)


def test_quantity_falls_from_client_to_client_by_one_factor(
    make_data: MakeData,
) -> None:
    # 3 clients share 111 examples beyond the smallest number as 100 : 10 : 1.
    config = _config(PartitionKind.quantity, min_examples=2)
    parts = _split(make_data([0, 1, 2] * 39), config, 3)
    assert [len(part) for part in parts] == [102, 12, 3]


@settings(deadline=None, max_examples=20)
@given(num_clients=NUM_CLIENTS, min_examples=st.integers(1, 20), seed=SEEDS)
def test_quantity_never_grows_and_keeps_the_smallest_number(
    num_clients: int, min_examples: int, seed: int, make_data: MakeData
) -> None:
    config = _config(PartitionKind.quantity, min_examples)
    sizes = [len(part) for part in _split(make_data(LABELS), config, num_clients, seed)]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= min_examples
    assert sum(sizes) == len(LABELS)


def test_quantity_with_too_few_examples_names_the_settings(
    make_data: MakeData,
) -> None:
    with pytest.raises(ConfigError, match=r"min_examples: 4 times 3.*num_devices"):
        _split(make_data([0, 1] * 5), _config(PartitionKind.quantity, 4), 3)


@pytest.mark.parametrize("kind", [PartitionKind.dirichlet, PartitionKind.shards])
def test_label_skew_without_labels_is_refused_with_the_alternatives(
    kind: PartitionKind, make_data: MakeData
) -> None:
    numbers = make_data(LABELS, OWNERS, task=Task.regression)
    message = rf"partition\.kind: {kind} .*regression.*iid, quantity, natural"
    with pytest.raises(ConfigError, match=message):
        _split(numbers, _config(kind), 10)


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("num_clients", [0, 7])
def test_a_number_of_clients_out_of_range_is_refused(
    kind: PartitionKind, num_clients: int, make_data: MakeData
) -> None:
    with pytest.raises(ConfigError, match=r"fleet\.num_devices: \d not in \[1, 6\]"):
        _split(make_data([0, 1] * 3, owners=[0] * 6), _config(kind), num_clients)


def test_a_million_clients_draw_their_own_examples(make_data: MakeData) -> None:
    config = PartitionConfig(kind=PartitionKind.bootstrap, examples_per_client=30)
    parts = _split(make_data(LABELS), config, 1_000_000, seed=3)
    assert len(parts) == 1_000_000
    first, last = parts[0], parts[999_999]
    assert len(first) == len(last) == 30
    assert not np.array_equal(first, last)
    assert 0 <= min(first.min(), last.min()) <= max(first.max(), last.max())
    assert max(first.max(), last.max()) < len(LABELS)
    np.testing.assert_array_equal(parts[0], first)
    np.testing.assert_array_equal(_lists(parts[:2]), _lists([parts[0], parts[1]]))
    with pytest.raises(IndexError):
        _ = parts[1_000_000]
