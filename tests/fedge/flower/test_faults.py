import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.errors import ConfigError
from fedge.flower import Faults, LocalGrid


def base(num_clients: int = 200) -> LocalGrid:
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        return Message(RecordDict({"m": MetricRecord({"x": 1})}), reply_to=message)

    app.train()(handle)
    app.evaluate()(handle)
    return LocalGrid(app, num_clients=num_clients)


def dropped(
    nodes: list[int], *, seed: int = 0, group: str = "0.0", kind: str = "train"
) -> set[int]:
    grid = Faults(base(), drop_probability=0.3, seed=seed)
    messages = [Message(RecordDict(), n, kind, group_id=group) for n in nodes]
    replies = list(grid.send_and_receive(messages))
    assert len(replies) == len(nodes)
    return {reply.metadata.src_node_id for reply in replies if reply.has_error()}


NODES = list(range(2, 202))


def test_about_as_many_are_dropped_as_asked_for() -> None:
    # 200 draws of 0.3: 60, with a standard deviation of 6.5.
    assert 34 <= len(dropped(NODES)) <= 86


def test_a_fate_depends_on_seed_group_and_node_alone() -> None:
    fate = dropped(NODES)
    assert dropped(NODES[::-1]) == fate
    assert dropped(NODES[50:60]) == fate & set(NODES[50:60])
    assert dropped(NODES, seed=1) != fate
    assert dropped(NODES, group="0.1") != fate


def test_asking_again_gives_the_same_fate() -> None:
    grid = Faults(base(), drop_probability=0.3, seed=0)
    fates = [
        [
            reply.metadata.src_node_id
            for reply in grid.stream([Message(RecordDict(), n, "train") for n in NODES])
            if reply.has_error()
        ]
        for _ in range(2)
    ]
    assert fates[0] == fates[1]


def test_only_training_is_dropped() -> None:
    assert dropped(NODES, kind="evaluate") == set()


def test_nothing_is_dropped_without_a_probability() -> None:
    grid = Faults(base(3), drop_probability=0.0, seed=0)
    messages = [Message(RecordDict(), node, "train") for node in (2, 3, 4)]
    assert not any(reply.has_error() for reply in grid.stream(messages))


@pytest.mark.parametrize("probability", [-0.1, 1.0, np.nan])
def test_a_probability_must_be_below_one(probability: float) -> None:
    with pytest.raises(ConfigError, match="drop_probability"):
        Faults(base(1), drop_probability=probability, seed=0)
