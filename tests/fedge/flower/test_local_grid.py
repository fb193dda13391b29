from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower

from fedge.errors import ConfigError
from fedge.flower import LocalGrid
from fedge.flower.records import array_of, read_array

Handler = Callable[[Message, Context], Message]


def answer(message: Message, **metrics: float) -> Message:
    return Message(RecordDict({"m": MetricRecord(dict(metrics))}), reply_to=message)


def grid_of(handler: Handler, num_clients: int = 3) -> LocalGrid:
    app = ClientApp()
    app.query()(handler)
    return LocalGrid(app, num_clients=num_clients)


def place_of(context: Context) -> int:
    place = context.node_config["partition-id"]
    assert isinstance(place, int)
    return place


def tell_place(message: Message, context: Context) -> Message:
    return answer(message, place=place_of(context))


def ask(grid: LocalGrid, content: RecordDict | None = None) -> list[Message]:
    messages = [
        grid.create_message(content or RecordDict(), "query", node, "1")
        for node in grid.get_node_ids()
    ]
    return list(grid.send_and_receive(messages))


def places(replies: list[Message]) -> list[object]:
    return [reply.content["m"]["place"] for reply in replies]


def reason(reply: Message) -> str:
    return reply.error.reason or ""


def test_every_client_answers_for_itself_in_the_order_of_the_messages() -> None:
    grid = grid_of(tell_place)
    assert list(grid.get_node_ids()) == [2, 3, 4]
    replies = ask(grid)
    assert places(replies) == [0, 1, 2]
    assert [reply.metadata.src_node_id for reply in replies] == [2, 3, 4]


def test_there_must_be_a_client() -> None:
    with pytest.raises(ConfigError, match="num_clients: 0 must be at least 1"):
        grid_of(tell_place, 0)


def test_clients_find_both_configs() -> None:
    app = ClientApp()

    @app.query()
    def configs(message: Message, context: Context) -> Message:
        found = {**context.node_config, **context.run_config}
        return Message(RecordDict({"c": ConfigRecord(dict(found))}), reply_to=message)

    grid = LocalGrid(
        app,
        num_clients=2,
        run_config={"a": 1},
        node_config=lambda index: {"name": f"client {index}"},
    )
    assert [dict(reply.content["c"]) for reply in ask(grid)] == [
        {"partition-id": 0, "num-partitions": 2, "name": "client 0", "a": 1},
        {"partition-id": 1, "num-partitions": 2, "name": "client 1", "a": 1},
    ]


def raise_in_the_middle(message: Message, context: Context) -> Message:
    if place_of(context) == 1:
        raise RuntimeError("the battery is empty")
    return tell_place(message, context)


def test_a_client_that_raises_becomes_an_error_reply() -> None:
    first, second, third = ask(grid_of(raise_in_the_middle))
    assert places([first, third]) == [0, 2]
    assert second.has_error()
    assert second.error.reason == "RuntimeError: the battery is empty"
    assert second.metadata.src_node_id == 3


def return_nothing(message: Message, context: Context) -> Message:
    return None  # type: ignore[return-value]  # what a careless client does


def return_the_request(message: Message, context: Context) -> Message:
    return message


def answer_another(message: Message, context: Context) -> Message:
    other = Message(RecordDict(), 77, "query")
    other.metadata.__dict__["_message_id"] = "another"
    return Message(RecordDict(), reply_to=other)


@pytest.mark.parametrize(
    "handler", [return_nothing, return_the_request, answer_another]
)
def test_garbage_becomes_an_error_reply(handler: Handler) -> None:
    replies = ask(grid_of(handler))
    assert all(reply.has_error() for reply in replies)
    assert "a ClientApp must return" in reason(replies[0])


def test_a_long_reason_is_cut() -> None:
    def shout(message: Message, context: Context) -> Message:
        raise ValueError("x" * 10**6)

    assert len(reason(ask(grid_of(shout))[0])) == 500


def test_what_nobody_handles_is_an_error_reply() -> None:
    grid = grid_of(tell_place, 1)
    replies = grid.send_and_receive([Message(RecordDict(), 2, "train")])
    assert "No train function registered" in reason(next(iter(replies)))


def test_an_unknown_node_is_an_error_reply() -> None:
    grid = grid_of(tell_place)
    messages = [Message(RecordDict(), node, "query") for node in (99, 3)]
    unknown, known = grid.send_and_receive(messages)
    assert unknown.error.reason == "node 99 is not in this grid"
    assert places([known]) == [1]


def test_a_client_that_changes_its_message_changes_nobody_elses() -> None:
    def destroy(message: Message, context: Context) -> Message:
        numbers = message.content["c"]["numbers"]
        assert isinstance(numbers, list)
        total = sum(int(number) for number in numbers)
        total += len(message.content["a"])
        numbers.clear()
        message.content["a"].clear()
        message.content.config_records["c"]["more"] = 1
        del message.content["m"]
        return answer(message, place=total)

    content = RecordDict(
        {
            "c": ConfigRecord({"numbers": [1, 2]}),
            "m": MetricRecord({"x": 1}),
            "a": ArrayRecord({"w": array_of(np.zeros(2))}),
        }
    )
    assert places(ask(grid_of(destroy), content)) == [4, 4, 4]
    assert content["c"] == {"numbers": [1, 2]}
    assert list(content) == ["c", "m", "a"]


def test_a_clients_state_lives_as_long_as_the_grid() -> None:
    def count(message: Message, context: Context) -> Message:
        seen = context.state.get("seen") or MetricRecord({"rounds": 0})
        assert isinstance(seen, MetricRecord)
        rounds = seen["rounds"]
        assert isinstance(rounds, int)
        context.state["seen"] = MetricRecord({"rounds": rounds + 1})
        return answer(message, place=rounds)

    grid = grid_of(count)
    assert places(ask(grid)) == [0, 0, 0]
    list(grid.send_and_receive([Message(RecordDict(), 3, "query")]))
    assert places(ask(grid)) == [1, 2, 1]
    assert places(ask(grid_of(count))) == [0, 0, 0]


def test_time_that_is_up_starts_no_further_client() -> None:
    grid = grid_of(tell_place)
    messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    assert list(grid.send_and_receive(messages, timeout=0.0)) == []
    assert len(list(grid.send_and_receive(messages, timeout=60.0))) == 3


def test_pushed_messages_are_answered_once_when_they_are_pulled() -> None:
    grid = grid_of(tell_place)
    messages = [Message(RecordDict(), node, "query") for node in (4, 2)]
    ids = list(grid.push_messages(messages))
    assert len(set(ids)) == 2
    replies = list(grid.pull_messages([ids[1], "unknown", ids[1], ids[0]]))
    assert places(replies) == [0, 2]
    assert [reply.metadata.reply_to_message_id for reply in replies] == ids[::-1]
    assert list(grid.pull_messages(ids)) == []


def test_every_message_and_reply_has_an_id_of_its_own() -> None:
    grid = grid_of(tell_place)
    replies = [*ask(grid), *ask(grid)]
    ids = {reply.metadata.message_id for reply in replies}
    ids |= {reply.metadata.reply_to_message_id for reply in replies}
    assert len(ids) == 12


def learning_app(broken: int = -1) -> ClientApp:
    """Each client moves half of the way to its own place, but one is broken."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model = read_array(message.content.array_records["arrays"]["w"])
        target = np.float32(place_of(context))
        if target == broken:
            raise RuntimeError("broken")
        arrays = ArrayRecord({"w": array_of((model + target) / 2)})
        metrics = MetricRecord({"num-examples": 10, "loss": float(target)})
        return Message(
            RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message
        )

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        model = read_array(message.content.array_records["arrays"]["w"])
        metrics = MetricRecord({"num-examples": 10, "value": float(model[0])})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def test_flowers_fedavg_runs_and_learns() -> None:
    result = flower.FedAvg().start(
        LocalGrid(learning_app(), num_clients=5),
        ArrayRecord({"w": array_of(np.zeros(4, np.float32))}),
        num_rounds=4,
    )
    expected = 2.0 * (1 - 0.5**4)  # half of the way to the mean place, four times
    np.testing.assert_allclose(read_array(result.arrays["w"]), expected, rtol=1e-6)
    metrics = result.evaluate_metrics_clientapp
    assert metrics[4]["value"] == pytest.approx(expected)


def test_flowers_fedadam_survives_a_broken_client() -> None:
    app = learning_app(broken=3)
    result = flower.FedAdam(eta=0.5).start(
        LocalGrid(app, num_clients=5),
        ArrayRecord({"w": array_of(np.zeros(4, np.float32))}),
        num_rounds=3,
    )
    assert read_array(result.arrays["w"])[0] > 0.5
    # Places 0, 1, 2 and 4 answered.
    assert result.train_metrics_clientapp[3]["loss"] == pytest.approx(7 / 4)
