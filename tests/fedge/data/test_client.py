from collections.abc import Callable

import numpy as np
import pytest

from fedge.config import PartitionConfig, PartitionKind
from fedge.data.client import client_examples
from fedge.data.dataset import FederatedData
from fedge.data.partition import partition
from fedge.errors import ConfigError

MakeData = Callable[..., FederatedData]
CONFIG = PartitionConfig(kind=PartitionKind.quantity, min_examples=2)


def test_clients_get_the_parts_of_the_partition(make_data: MakeData) -> None:
    data = make_data([0, 1, 2] * 20)
    parts = partition(data, CONFIG, num_clients=4, seed=3)
    clients = [
        client_examples(data, CONFIG, num_clients=4, seed=3, client_index=index)
        for index in range(4)
    ]
    assert len(parts) == 4
    for part, client in zip(parts, clients, strict=True):
        np.testing.assert_array_equal(client.features, data.train.features[part])
        np.testing.assert_array_equal(client.targets, data.train.targets[part])


def test_every_setting_and_the_data_itself_tell_splits_apart(
    make_data: MakeData,
) -> None:
    data, other_data = make_data([0, 1] * 50), make_data([1, 0] * 50)
    iid = PartitionConfig(kind=PartitionKind.iid)
    shards = PartitionConfig(kind=PartitionKind.shards, shards_per_client=1)
    found = [
        client_examples(from_data, config, num_clients=num, seed=seed, client_index=1)
        for from_data, config, num, seed in [
            (data, iid, 4, 0),
            (data, iid, 4, 1),
            (data, iid, 5, 0),
            (data, shards, 4, 0),
            (other_data, iid, 4, 0),
        ]
    ]
    contents = {
        client.features.tobytes() + client.targets.tobytes() for client in found
    }
    assert len(contents) == 5


def test_changing_a_copy_leaves_the_data_alone(make_data: MakeData) -> None:
    data = make_data([0, 1] * 10)
    first = client_examples(data, CONFIG, num_clients=2, seed=0, client_index=0)
    first.features[:] = -1
    again = client_examples(data, CONFIG, num_clients=2, seed=0, client_index=0)
    assert (again.features >= 0).all()


@pytest.mark.parametrize("client_index", [-1, 2])
def test_a_client_that_does_not_exist_is_refused(
    client_index: int, make_data: MakeData
) -> None:
    with pytest.raises(ConfigError, match=r"client_index.*\[0, 2\).*num_devices"):
        client_examples(
            make_data([0, 1] * 10),
            CONFIG,
            num_clients=2,
            seed=0,
            client_index=client_index,
        )
