"""Replies that Flower's loop has forgotten are let go of; all others are kept."""

import gc
import weakref
from collections.abc import Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from fedge.flower import LocalGrid
from fedge.flower.shared import SharedGrid

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    arrays = message.content.array_records["arrays"]
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord(dict(arrays)), "metrics": metrics})
    return Message(content, reply_to=message)


class Watching(FedAvg):
    """FedAvg that notes how many earlier replies live when it asks for new ones."""

    def __init__(self, *, keeps: str) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.keeps = keeps
        self.kept: list[object] = []
        self.earlier: list[weakref.ref[Message]] = []
        self.alive: list[int] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.alive.append(sum(ref() is not None for ref in self.earlier))
        found = list(replies)
        self.earlier += [weakref.ref(reply) for reply in found]
        kept: dict[str, list[object]] = {
            "nothing": [],
            "list": [replies],
            "messages": list(found),
        }
        self.kept += kept[self.keeps]
        return super().aggregate_train(server_round, found)


def run(keeps: str) -> Watching:
    strategy = Watching(keeps=keeps)
    with LocalGrid(client_app, num_clients=3, workers=0) as grid:
        initial = ArrayRecord({"w": Array(np.zeros(2))})
        strategy.start(SharedGrid(grid), initial, num_rounds=3)
    return strategy


def test_replies_of_earlier_rounds_are_let_go_of() -> None:
    assert run("nothing").alive == [0, 0, 0]


def test_a_list_that_a_strategy_keeps_is_kept() -> None:
    strategy = run("list")
    assert strategy.alive == [0, 3, 6]
    assert [len(list(kept)) for kept in strategy.kept] == [3, 3, 3]  # type: ignore[call-overload]


def test_messages_that_a_strategy_keeps_are_kept() -> None:
    strategy = run("messages")
    assert len(strategy.kept) == 9
    assert all(isinstance(m, Message) and m.has_content() for m in strategy.kept)


def test_replies_of_somebody_elses_loop_are_kept() -> None:
    with LocalGrid(client_app, num_clients=3, workers=0) as inner:
        grid = SharedGrid(inner)
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(2))})})

        def ask() -> list[Message]:
            nodes = inner.get_node_ids()
            sent = [grid.create_message(content, "train", n, "") for n in nodes]
            return list(grid.send_and_receive(sent))

        first = grid.send_and_receive(
            [grid.create_message(content, "train", n, "") for n in inner.get_node_ids()]
        )
        ask()
        gc.collect()
        assert len(list(first)) == 3
