"""What a grid says while a request is under way, and where its workers' time went."""

import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.flower import LocalGrid, PlainSum, Telemetry
from fedge.flower.records import array_of
from fedge.stopwatch import Lap, Stopwatch, measure, timed_by

NUM_CLIENTS = 12


def grid_of(workers: int, seconds: float = 0.0) -> LocalGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        with measure("sleeping"):
            time.sleep(seconds)
        arrays = ArrayRecord({"w": array_of(np.ones(3, np.float32))})
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"a": arrays, "m": metrics}), reply_to=message)

    return LocalGrid(app, num_clients=NUM_CLIENTS, workers=workers)


def messages(grid: LocalGrid) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in grid.get_node_ids()]


def lap_of(grid: LocalGrid, watch: Stopwatch) -> Lap:
    with timed_by(watch):
        list(PlainSum(Telemetry(grid)).stream(messages(grid)))
    return watch.take()


@pytest.mark.parametrize("sums", [False, True])
def test_progress_grows_to_all_that_were_asked(*, sums: bool) -> None:
    told: list[tuple[int, int]] = []
    with grid_of(workers=2) as grid:
        grid.on_progress = lambda done, asked: told.append((done, asked))
        list((PlainSum(grid) if sums else grid).stream(messages(grid)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (NUM_CLIENTS, NUM_CLIENTS)
    assert len(told) > 1


def test_without_workers_each_client_is_told_and_nobody_knows_how_many_come() -> None:
    told: list[tuple[int, int]] = []
    grid = grid_of(workers=0)
    grid.on_progress = lambda done, asked: told.append((done, asked))
    list(grid.stream(messages(grid)))
    assert told == [(number, 0) for number in range(1, NUM_CLIENTS + 1)]


def test_workers_report_what_they_spent_inside_their_clients_and_around_them() -> None:
    with grid_of(workers=2, seconds=0.01) as grid:
        lap = lap_of(grid, Stopwatch())
    spent = lap.workers.seconds_by_name
    assert spent["sleeping"] >= NUM_CLIENTS * 0.01
    assert {"decoding", "client code", "adding up", "sending"} <= {*spent}
    assert "sleeping" not in lap.here.seconds_by_name
    assert sum(spent.values()) <= 2 * lap.wall_seconds
    assert lap.num_workers == 2
    assert lap.workers.cpu_seconds > 0.0


def test_requests_with_and_without_a_stopwatch_may_follow_each_other() -> None:
    with grid_of(workers=2, seconds=0.001) as grid:
        first = lap_of(grid, Stopwatch())
        list(grid.stream(messages(grid)))
        second = lap_of(grid, Stopwatch())
    for lap in (first, second):
        slept = lap.workers.seconds_by_name["sleeping"]
        assert NUM_CLIENTS * 0.001 <= slept <= 2 * lap.wall_seconds


def test_without_workers_the_clients_time_is_this_process_own() -> None:
    lap = lap_of(grid_of(workers=0, seconds=0.001), Stopwatch())
    assert lap.here.seconds_by_name["sleeping"] >= NUM_CLIENTS * 0.001
    assert lap.workers.seconds_by_name == {}
    assert lap.num_workers == 0
