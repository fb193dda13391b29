import time
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedge.flower import GridLayer, LocalGrid, stream_replies


class PushPull(Grid):
    """Like Flower's own grids: no `stream`; each pull finds at most one reply."""

    def __init__(self, never: frozenset[int] = frozenset()) -> None:
        app = ClientApp()

        @app.query()
        def handle(message: Message, context: Context) -> Message:
            return Message(RecordDict({"m": MetricRecord({"x": 1})}), reply_to=message)

        self.inner = LocalGrid(app, num_clients=5)
        self.never = never
        self.waiting: list[str] = []
        self.num_pushes = 0

    def set_run(self, run: Run) -> None:
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        return self.inner.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:  # noqa: ANN401
        return self.inner.create_message(*arguments, **named)

    def get_node_ids(self) -> Iterable[int]:
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.num_pushes += 1
        pushed = list(messages)
        ids = list(self.inner.push_messages(pushed))
        self.waiting += [
            message_id
            for message, message_id in zip(pushed, ids, strict=True)
            if message.metadata.dst_node_id not in self.never
        ]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = [i for i in self.waiting if i in set(message_ids)][:1]
        self.waiting = [i for i in self.waiting if i not in found]
        return list(self.inner.pull_messages(found))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise NotImplementedError


def queries(nodes: Iterable[int]) -> list[Message]:
    return [Message(RecordDict(), node, "query") for node in nodes]


def sources(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def test_a_grid_that_only_pushes_and_pulls_is_polled_until_all_have_answered() -> None:
    grid = PushPull()
    assert sources(stream_replies(grid, queries([2, 4, 3]))) == [2, 4, 3]


def test_replies_are_there_before_the_last_one_is() -> None:
    grid = PushPull(never=frozenset({3}))
    replies = stream_replies(grid, queries([2, 3]))
    assert next(replies).metadata.src_node_id == 2


@pytest.mark.parametrize("timeout", [0.0, 0.25])
def test_a_node_that_never_answers_is_waited_for_until_time_is_up(
    timeout: float,
) -> None:
    grid = PushPull(never=frozenset({3}))
    started = time.monotonic()
    replies = sources(stream_replies(grid, queries([2, 3]), timeout=timeout))
    assert replies == [2]
    assert timeout <= time.monotonic() - started < timeout + 2.0


def test_nothing_to_send_pushes_nothing() -> None:
    grid = PushPull()
    assert list(stream_replies(grid, [])) == []
    assert list(GridLayer(grid).send_and_receive([])) == []
    assert grid.num_pushes == 0


def test_a_layer_passes_everything_on() -> None:
    grid = PushPull()
    layer = GridLayer(GridLayer(grid))
    assert layer.run is grid.run
    assert list(layer.get_node_ids()) == [2, 3, 4, 5, 6]
    message = layer.create_message(RecordDict(), "query", 3, "group")
    assert message.metadata.group_id == "group"
    assert sources(layer.pull_messages(layer.push_messages([message]))) == [3]
    assert sources(layer.send_and_receive(queries([5, 6]))) == [5, 6]
    layer.set_run(Run.create_empty(7))
    assert grid.run.run_id == 7
