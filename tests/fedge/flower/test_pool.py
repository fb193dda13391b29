"""Clients in worker processes answer as they would in this one."""

import os
import time
from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedge.config import SecAggConfig
from fedge.flower import LocalGrid, PlainSum, SecureSum, secure_mod
from fedge.flower.batching import Stacked, computed, together
from fedge.flower.records import array_of, read_array
from tests.fedge.flower.crowd import (
    app_of,
    ask,
    count,
    failures,
    index_of,
    messages,
    nodes_of,
    tell,
    told,
    update,
    within,
)

WORKERS = pytest.mark.parametrize("workers", [1, 2, 3])


def answers(replies: Sequence[Message]) -> list[object]:
    """Return all that must not depend on the workers."""
    return [
        (
            reply.metadata.src_node_id,
            reply.metadata.message_type,
            reply.metadata.group_id,
            (reply.error.code, reply.error.reason)
            if reply.has_error()
            else reply.content,
        )
        for reply in replies
    ]


def sometimes(message: Message, context: Context) -> Message:
    """Answer, raise, or leave a state, by client; tell what was found."""
    if index_of(context) % 5 == 1:
        raise RuntimeError("the battery is empty")
    return (count if index_of(context) % 2 else update)(message, context)


def three_rounds(workers: int) -> list[object]:
    with LocalGrid(app_of(sometimes), num_clients=20, workers=workers) as grid:
        kinds = ("train", "evaluate", "query.a")
        return [answer for kind in kinds for answer in answers(ask(grid, kind))]


@WORKERS
def test_replies_are_those_of_one_process_and_in_the_order_of_the_messages(
    workers: int,
) -> None:
    assert three_rounds(workers) == three_rounds(0)


@WORKERS
def test_any_order_of_messages_is_the_order_of_the_replies(workers: int) -> None:
    nodes = np.random.default_rng(0).permutation(range(2, 302)).tolist()
    handler = lambda message, context: tell(message, x=index_of(context))  # noqa: E731
    with LocalGrid(app_of(handler), num_clients=300, workers=workers) as grid:
        replies = ask(grid, nodes=nodes)
    assert nodes_of(replies) == nodes
    assert told(replies, "x") == [node - 2 for node in nodes]


def test_clients_find_in_a_message_what_was_sent_to_them() -> None:
    def handler(message: Message, context: Context) -> Message:
        values = read_array(message.content.array_records["a"]["w"])
        m = message.metadata
        assert (m.dst_node_id, m.run_id, m.src_node_id) == (context.node_id, 1, 1)
        assert (m.group_id, m.ttl) == ("group", 77.0)
        return tell(message, first=float(values[0]), last=float(values[-1]))

    with LocalGrid(app_of(handler), num_clients=4, workers=2) as grid:
        sent = []
        for node in grid.get_node_ids():
            array = array_of(np.linspace(node, -node, 10_000))
            content = RecordDict({"a": ArrayRecord({"w": array})})
            sent.append(grid.create_message(content, "query", node, "group", 77.0))
        replies = list(grid.send_and_receive(sent))
    assert told(replies, "first") == [2.0, 3.0, 4.0, 5.0]
    assert told(replies, "last") == [-2.0, -3.0, -4.0, -5.0]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_client_cannot_change_what_another_is_told(workers: int) -> None:
    def destroy(message: Message, context: Context) -> Message:
        numbers = message.content.config_records["c"]["numbers"]
        assert isinstance(numbers, list)
        total = len(numbers) + len(message.content.array_records["a"])
        numbers.clear()
        message.content["a"].clear()
        del message.content["c"]
        return tell(message, total=total)

    array = array_of(np.zeros(2))
    record = ConfigRecord({"numbers": [1, 2]})
    content = RecordDict({"c": record, "a": ArrayRecord({"w": array})})
    with LocalGrid(app_of(destroy), num_clients=8, workers=workers) as grid:
        sent = messages(grid.get_node_ids(), content=content)
        replies = [*grid.send_and_receive(sent), *grid.send_and_receive(sent)]
    assert told(replies, "total") == [3] * 16
    assert content["c"] == {"numbers": [1, 2]}


def test_an_app_may_be_made_of_closures() -> None:
    offset = 40

    def make(number: int) -> ClientApp:
        return app_of(lambda message, _: tell(message, x=number + offset))

    with LocalGrid(make(2), num_clients=3, workers=2) as grid:
        assert told(ask(grid), "x") == [42, 42, 42]


# -- what clients keep -----------------------------------------------------------------


@WORKERS
def test_a_state_lives_as_long_as_the_workers(workers: int) -> None:
    with LocalGrid(app_of(count), num_clients=9, workers=workers) as grid:
        rounds = [told(ask(grid, kind), "times") for kind in ("train", "query")]
        assert rounds == [[0] * 9, [1] * 9]
        assert told(ask(grid, nodes=[5, 3]), "times") == [2, 2]
        assert told(ask(grid), "times") == [2, 3, 2, 3, 2, 2, 2, 2, 2]
        grid.close()
        assert told(ask(grid), "times") == [0] * 9


def test_a_state_moves_with_its_client_to_another_worker() -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = count(message, context)
        reply.content.metric_records["m"]["pid"] = os.getpid()
        time.sleep(0.02)
        return reply

    with LocalGrid(app_of(handler), num_clients=12, workers=2) as grid:
        first = ask(grid)
        one = grid.worker_pids[0]
        of_one = [
            n
            for n, p in zip(nodes_of(first), told(first, "pid"), strict=True)
            if p == one
        ]
        assert len(of_one) >= 2
        for times in (1, 2, 3):
            replies = ask(grid, nodes=of_one)
            assert told(replies, "times") == [times] * len(of_one)
            assert set(told(replies, "pid")) == set(grid.worker_pids)


@pytest.mark.parametrize("kind", ["query", "train"])
def test_a_state_survives_the_death_of_its_worker(kind: str) -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = count(message, context)
        if message.metadata.message_type == "train" and index_of(context) == 3:
            os._exit(1)
        if message.metadata.message_type == "train":
            return update(message, context)
        return reply

    with LocalGrid(app_of(handler), num_clients=8, workers=2) as grid:
        top: Grid = PlainSum(grid) if kind == "train" else grid
        ask(grid)
        pids = set(grid.worker_pids)
        assert list(failures(ask(top, "train"))) == [5]
        assert len(pids & set(grid.worker_pids)) == 1
        # What the client did before its process died is undone; nothing else is.
        assert told(ask(grid), "times") == [2, 2, 2, 1, 2, 2, 2, 2]


def test_what_a_client_forgets_is_forgotten() -> None:
    def handler(message: Message, context: Context) -> Message:
        found = "note" in context.state
        if found:
            del context.state["note"]
        else:
            context.state["note"] = ConfigRecord({"text": "x"})
        return tell(message, found=float(found))

    with LocalGrid(app_of(handler), num_clients=3, workers=2) as grid:
        rounds = [told(ask(grid), "found") for _ in range(3)]
    assert rounds == [[0] * 3, [1] * 3, [0] * 3]


def test_two_messages_to_one_client_are_answered_one_after_the_other() -> None:
    with LocalGrid(app_of(count), num_clients=4, workers=2) as grid:
        replies = ask(grid, nodes=[2, 3, 2, 2, 4, 3])
        by_node: dict[int, list[object]] = {2: [], 3: [], 4: []}
        for node, times in zip(nodes_of(replies), told(replies, "times"), strict=True):
            by_node[node].append(times)
    assert by_node == {2: [0, 1, 2], 3: [0, 1], 4: [0]}


@pytest.mark.parametrize(
    "nodes",
    [
        [3, 99, 4],
        [2, 2, 3],
        [99, 4, 3],
    ],
)
def test_strangers_and_repeated_nodes_keep_their_place(nodes: list[int]) -> None:
    with LocalGrid(app_of(count), num_clients=4, workers=2) as grid:
        replies = ask(grid, nodes=nodes)
        ids = [int(reply.metadata.reply_to_message_id) for reply in replies]
    assert nodes_of(replies) == nodes
    assert ids == sorted(ids)


# -- sums ------------------------------------------------------------------------------


def uneven(message: Message, context: Context) -> Message:
    """Some raise, some have another layout, some a weight that is refused."""
    index = index_of(context)
    if index % 11 == 3:
        raise RuntimeError("broken")
    reply = update(message, context, size=51 if index % 11 == 4 else 50)
    if index % 11 == 5:
        reply.content.metric_records["metrics"]["num-examples"] = -1.0
    return reply


def plain_sum(workers: int, enough: int = 0) -> tuple[RecordDict, list[int]]:
    with LocalGrid(app_of(uneven), num_clients=40, workers=workers) as grid:
        replies = ask(PlainSum(grid, enough=enough), "train")
    (good,) = [reply for reply in replies if not reply.has_error()]
    return good.content, sorted(failures(replies))


@WORKERS
def test_a_plain_sum_is_the_same_to_the_bit(workers: int) -> None:
    content, failed = plain_sum(workers)
    assert (content, failed) == plain_sum(0)
    assert content.metric_records["metrics"]["num-clients"] == 40 - len(failed) == 28


@WORKERS
def test_a_plain_sum_of_enough_replies_takes_the_same_ones(workers: int) -> None:
    assert plain_sum(workers, enough=7) == plain_sum(0, enough=7)


def secure_sum(workers: int) -> RecordDict:
    app = ClientApp(mods=[secure_mod])
    app.train()(update)
    zeros = ArrayRecord({"w": array_of(np.zeros(50, np.float32))})
    with LocalGrid(app, num_clients=7, workers=workers) as grid:
        config = SecAggConfig(max_weight=16.0, min_cohort=5)
        secure = SecureSum(grid, config, metrics=["loss"])
        sent = messages(grid.get_node_ids(), "train", RecordDict({"arrays": zeros}))
        (reply,) = secure.send_and_receive(sent)
    return reply.content


def test_a_secure_sum_is_the_same_to_the_bit() -> None:
    expected = secure_sum(0)
    assert [secure_sum(workers) for workers in (1, 2, 3)] == [expected] * 3


# -- computed together -----------------------------------------------------------------


def stacking_app() -> ClientApp:
    app = app_of(update)

    @together(app)
    def all_of_them(pairs: Sequence[tuple[Message, Context]]) -> Stacked:
        replies = [update(message, context).content for message, context in pairs]
        rows = [read_array(r.array_records["arrays"]["w"]) for r in replies]
        metrics = [r.metric_records["metrics"] for r in replies]
        names = ("num-examples", "loss")
        columns = {n: np.array([float(m[n]) for m in metrics]) for n in names}  # type: ignore[arg-type]
        return Stacked({"w": np.stack(rows)}, columns)

    return app


@pytest.mark.parametrize("sums", [True, False])
def test_clients_that_are_computed_together_answer_as_if_alone(*, sums: bool) -> None:
    def run(workers: int, *, batching: bool) -> list[RecordDict]:
        made = LocalGrid(
            stacking_app(), num_clients=30, workers=workers, batching=batching
        )
        with made as grid:
            replies = ask(PlainSum(grid) if sums else grid, "train")
        return [reply.content for reply in replies]

    alone = run(0, batching=False)
    assert run(2, batching=True) == run(1, batching=True) == alone


def test_what_was_computed_for_all_reaches_each_handler() -> None:
    app = app_of(lambda message, _: tell(message, x=float(str(computed() or -1))))

    @together(app)
    def sums(pairs: Sequence[tuple[Message, Context]]) -> dict[str, object]:
        return {m.metadata.message_id: 10 + index_of(c) for m, c in pairs}

    with LocalGrid(app, num_clients=24, workers=2) as grid:
        assert told(ask(grid), "x") == [10 + i for i in range(24)]
        assert told(ask(grid, nodes=[7]), "x") == [-1]  # nobody to be together with


# -- several requests ------------------------------------------------------------------


@pytest.mark.parametrize("sums", [True, False])
def test_a_request_may_be_abandoned_and_another_follows(*, sums: bool) -> None:
    def handler(message: Message, context: Context) -> Message:
        time.sleep(0.005)
        return uneven(message, context)

    with LocalGrid(app_of(handler), num_clients=60, workers=2) as grid, within(20):
        top: Grid = PlainSum(grid) if sums else grid
        for _ in range(3):
            stream = top.stream(messages(grid.get_node_ids(), "train"))  # type: ignore[attr-defined]
            next(stream)
            stream.close()
        assert len(ask(grid, "evaluate")) == 60
        assert len(failures(ask(PlainSum(grid), "train"))) == 17


def test_two_requests_may_be_read_in_turns() -> None:
    def handler(message: Message, context: Context) -> Message:
        time.sleep(0.02)
        return tell(message, x=float(str(message.content["c"]["x"])))

    app = app_of(handler)
    with LocalGrid(app, num_clients=20, workers=1) as grid, within(3):
        streams = [
            grid.stream(
                messages(
                    grid.get_node_ids(),
                    content=RecordDict({"c": ConfigRecord({"x": x})}),
                )
            )
            for x in (1.0, 2.0)
        ]
        pairs = list(zip(*streams, strict=True))
    assert [told(pair, "x") for pair in pairs] == [[1.0, 2.0]] * 20


def test_an_old_request_may_be_closed_while_a_new_one_runs() -> None:
    def handler(message: Message, context: Context) -> Message:
        time.sleep(0.02)
        return tell(message, x=1)

    with LocalGrid(app_of(handler), num_clients=20, workers=1) as grid, within(3):
        old = grid.stream(messages(grid.get_node_ids()))
        next(old)
        new = grid.stream(messages(grid.get_node_ids()))
        next(new)
        old.close()  # type: ignore[attr-defined]  # a generator
        assert len(list(new)) == 19


def test_pushed_messages_are_answered_when_they_are_pulled() -> None:
    with LocalGrid(app_of(count), num_clients=5, workers=2) as grid:
        ids = list(grid.push_messages(messages([6, 2, 2])))
        replies = list(grid.pull_messages([ids[1], "unknown", ids[0]]))
        assert nodes_of(replies) == [2, 6]
        assert [r.metadata.reply_to_message_id for r in replies] == [ids[1], ids[0]]
        assert told(grid.pull_messages(ids), "times") == [1]
        assert list(grid.pull_messages(ids)) == []


def test_two_grids_do_not_know_of_each_other() -> None:
    first, second = (app_of(lambda m, _, x=x: tell(m, x=x)) for x in (1, 2))  # type: ignore[misc]
    with (
        LocalGrid(first, num_clients=3, workers=2) as one,
        LocalGrid(second, num_clients=4, workers=2) as other,
    ):
        pairs = zip(
            one.stream(messages([2, 3])), other.stream(messages([3, 5])), strict=True
        )
        assert [told(pair, "x") for pair in pairs] == [[1, 2], [1, 2]]
        assert not set(one.worker_pids) & set(other.worker_pids)
