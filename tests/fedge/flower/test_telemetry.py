import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.flower import Faults, LocalGrid, PlainSum, Telemetry, Traffic
from fedge.flower.records import array_of, payload_bytes

DOWN = RecordDict({"a": ArrayRecord({"w": array_of(np.zeros(100, np.float32))})})
UP = RecordDict(
    {
        "a": ArrayRecord({"w": array_of(np.zeros(10, np.float32))}),
        "m": MetricRecord({"num-examples": 3}),
    }
)


def base(num_clients: int = 4, workers: int | None = None) -> LocalGrid:
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise RuntimeError("broken")
        return Message(UP, reply_to=message)

    for category in (app.train, app.evaluate, app.query):
        category()(handle)
    return LocalGrid(app, num_clients=num_clients, workers=workers)


def messages(grid: LocalGrid, kind: str) -> list[Message]:
    return [Message(DOWN, node, kind) for node in grid.get_node_ids()]


def test_messages_replies_failures_and_bytes_are_counted() -> None:
    grid = base()
    telemetry = Telemetry(grid)
    replies = list(telemetry.send_and_receive(messages(grid, "train")))
    assert [reply.has_error() for reply in replies] == [False, True, False, False]
    traffic = telemetry.snapshot()["train"]
    assert (traffic.messages, traffic.replies, traffic.failures) == (4, 3, 1)
    assert traffic.bytes_down == 4 * payload_bytes(DOWN)
    assert traffic.bytes_up == 3 * payload_bytes(UP)
    assert traffic.seconds > 0.0


def test_each_phase_is_counted_for_itself_and_adds_up() -> None:
    grid = base()
    telemetry = Telemetry(grid)
    for kind in ("train", "query", "train"):
        list(telemetry.stream(messages(grid, kind)))
    counts = {kind: t.messages for kind, t in telemetry.snapshot().items()}
    assert counts == {"train": 8, "query": 4}


def test_a_snapshot_does_not_change_any_more() -> None:
    grid = base()
    telemetry = Telemetry(grid)
    before = telemetry.snapshot()
    list(telemetry.stream(messages(grid, "train")))
    assert before == {}
    assert Telemetry(grid).snapshot().get("train", Traffic()) == Traffic()


def test_below_a_sum_only_those_are_counted_that_were_asked() -> None:
    grid = base(workers=0)
    telemetry = Telemetry(grid)
    (failure, one) = PlainSum(telemetry, enough=2).stream(messages(grid, "train"))
    assert failure.has_error()
    assert one.content["m"]["num-clients"] == 2
    assert telemetry.snapshot()["train"].messages == 3


def test_dropped_messages_were_sent_and_failed() -> None:
    grid = base()
    telemetry = Telemetry(Faults(grid, drop_probability=0.999999, seed=0))
    list(telemetry.stream(messages(grid, "train")))
    traffic = telemetry.snapshot()["train"]
    assert (traffic.messages, traffic.failures, traffic.bytes_up) == (4, 4, 0)


def test_the_time_a_reader_takes_is_not_counted() -> None:
    grid = base()
    telemetry = Telemetry(grid)
    for _ in telemetry.stream(messages(grid, "train")):
        time.sleep(0.1)
    assert telemetry.snapshot()["train"].seconds < 0.3
