import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.flower import GridLayer, LocalGrid
from fedge.flower.partial import Reduction
from fedge.flower.shared import SharedGrid

client_app = ClientApp()


@client_app.query()
def echo(message: Message, context: Context) -> Message:
    place = context.node_config["partition-id"]
    assert isinstance(place, int)
    metrics = MetricRecord({"place": place, "x": int(message.metadata.group_id)})
    return Message(RecordDict({"m": metrics}), reply_to=message)


class Occupied(GridLayer):
    """Notes how many requests there were, and whether two were there at once."""

    requests = 0
    is_occupied = False

    def stream(
        self,
        messages: object,
        *,
        timeout: float | None = None,
        reduction: object = None,
    ) -> Iterator[Message]:
        assert not self.is_occupied
        self.is_occupied = True
        self.requests += 1
        time.sleep(0.005)  # others arrive meanwhile
        assert reduction is None or isinstance(reduction, Reduction)
        yield from super().stream(messages, timeout=timeout)  # type: ignore[arg-type]
        self.is_occupied = False


def ask(grid: SharedGrid, nodes: list[int], x: int) -> list[tuple[object, object]]:
    messages = [Message(RecordDict(), n, "query", group_id=str(x)) for n in nodes]
    replies = list(grid.send_and_receive(messages))
    return [(r.content["m"]["place"], r.content["m"]["x"]) for r in replies]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(2, 6), max_size=4), min_size=1, max_size=12))
def test_every_thread_gets_the_replies_to_its_own_messages(
    requests: list[list[int]],
) -> None:
    with LocalGrid(client_app, num_clients=5, workers=0) as grid:
        shared = SharedGrid(Occupied(grid))
        with ThreadPoolExecutor(12) as threads:
            numbers = range(len(requests))
            found = list(threads.map(lambda i: ask(shared, requests[i], i), numbers))
    assert found == [[(n - 2, i) for n in nodes] for i, nodes in enumerate(requests)]


def test_what_many_threads_ask_meanwhile_is_one_request_over_the_workers() -> None:
    with LocalGrid(client_app, num_clients=20, workers=2) as grid:
        inner = Occupied(grid)
        shared, start = SharedGrid(inner), threading.Barrier(20)

        def one(node: int) -> list[tuple[object, object]]:
            start.wait()
            return ask(shared, [node], node)

        with ThreadPoolExecutor(20) as threads:
            found = list(threads.map(one, grid.get_node_ids()))
    assert found == [[(n - 2, n)] for n in range(2, 22)]
    assert inner.requests < 20


def test_a_failure_reaches_every_thread_that_asked() -> None:
    class Broken(GridLayer):
        def stream(self, *_: object, **__: object) -> Iterator[Message]:
            raise LookupError("no devices today")

    shared = SharedGrid(Broken(LocalGrid(client_app, num_clients=2, workers=0)))
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(ask, shared, [2], i) for i in range(4)]
    for future in futures:
        with pytest.raises(LookupError, match="no devices today"):
            future.result()


def test_threads_may_push_and_pull_and_use_timeouts() -> None:
    with LocalGrid(client_app, num_clients=4, workers=2) as grid:
        shared = SharedGrid(grid)

        def push_and_pull(node: int) -> list[object]:
            message = Message(RecordDict(), node, "query", group_id="1")
            replies = shared.pull_messages(shared.push_messages([message]))
            return [reply.content["m"]["place"] for reply in replies]

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(push_and_pull, range(2, 6))) == [[0], [1], [2], [3]]
        message = Message(RecordDict(), 2, "query", group_id="1")
        assert len(list(shared.send_and_receive([message], timeout=60.0))) == 1
        assert list(shared.send_and_receive([message], timeout=0.0)) == []
