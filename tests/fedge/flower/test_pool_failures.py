"""A client that ends its process, or never ends, fails alone; the rest goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid

from fedge.errors import TransportError
from fedge.flower import LocalGrid, PlainSum
from fedge.flower.batching import together
from fedge.flower.records import array_of
from tests.fedge.flower.crowd import (
    Handler,
    app_of,
    ask,
    failures,
    index_of,
    messages,
    nodes_of,
    nursery_of,
    tell,
    update,
    within,
)

NUM_CLIENTS, BAD = 16, 5
MEGABYTE = 1_000_000


def raising(message: Message) -> None:
    raise ValueError("no data")


def interrupting(message: Message) -> None:
    raise KeyboardInterrupt


def exiting(message: Message) -> None:
    sys.exit("enough")


def ending(message: Message) -> None:
    os._exit(3)


def killed(message: Message) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def endless(message: Message) -> None:
    time.sleep(600)


def greedy(message: Message) -> None:
    bytearray(900 * MEGABYTE)


def but_one(act: object, bad: Sequence[int] = (BAD,)) -> Handler:
    """Return a handler that answers well, except for these clients."""

    def handler(message: Message, context: Context) -> Message:
        if index_of(context) in bad:
            act(message)  # type: ignore[operator]  # one of those above
        return update(message, context)

    return handler


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (raising, "ValueError: no data"),
        (interrupting, "exit code 1"),
        (exiting, "SystemExit: enough"),
        (ending, "its process ended with exit code 3"),
        (killed, "its process was killed by SIGKILL"),
        (endless, "it computed for more than 0.3 s"),
        (greedy, "MemoryError"),
    ],
)
def test_exactly_the_client_that_fails_has_failed(
    act: object, reason: str, *, sums: bool
) -> None:
    made = LocalGrid(
        app_of(but_one(act)),
        num_clients=NUM_CLIENTS,
        workers=2,
        client_seconds=0.3 if act is endless else 0.0,
        memory_bytes=300 * MEGABYTE if act is greedy else 0,
    )
    with made as grid, within(20):
        top: Grid = PlainSum(grid) if sums else grid
        first, second = ask(top, "train"), ask(top, "train")
    found = failures(first)
    assert list(found) == [BAD + 2]
    assert reason in found[BAD + 2]
    assert failures(second) == found
    good = [reply for reply in first if reply.has_content()]
    assert [r.content for r in good] == [r.content for r in second if r.has_content()]
    num = (
        good[0].content.metric_records["metrics"]["num-clients"] if sums else len(good)
    )
    assert num == NUM_CLIENTS - 1


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_many_may_fail_in_one_request(workers: int) -> None:
    bad = [0, 1, 7, 8, 15]
    grid = LocalGrid(
        app_of(but_one(ending, bad)), num_clients=NUM_CLIENTS, workers=workers
    )
    with grid, within(20):
        replies = ask(grid, "train")
        (good,) = [r for r in ask(PlainSum(grid), "train") if r.has_content()]
    assert nodes_of(replies) == list(range(2, 2 + NUM_CLIENTS))
    assert list(failures(replies)) == [2 + index for index in bad]
    assert good.content.metric_records["metrics"]["num-clients"] == NUM_CLIENTS - 5


def test_the_sum_without_the_dead_is_the_same_to_the_bit() -> None:
    def result(act: object, workers: int) -> object:
        app = app_of(but_one(act))
        with LocalGrid(app, num_clients=NUM_CLIENTS, workers=workers) as grid:
            return ask(PlainSum(grid), "train")[-1].content

    assert result(killed, 2) == result(ending, 3) == result(raising, 0)


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("act", [ending, endless])
@pytest.mark.parametrize("alone_it_works", [True, False])
def test_who_dies_together_is_computed_alone(
    act: object, *, sums: bool, alone_it_works: bool
) -> None:
    app = app_of(but_one(act, [] if alone_it_works else [BAD]))

    @together(app)
    def all_of_them(pairs: Sequence[tuple[Message, Context]]) -> dict[str, object]:
        if any(index_of(context) == BAD for _, context in pairs):
            act(pairs[0][0])  # type: ignore[operator]  # one of those above
        return {}

    limit = 0.2 if act is endless else 0.0
    made = LocalGrid(app, num_clients=NUM_CLIENTS, workers=2, client_seconds=limit)
    with made as grid, within(20):
        replies = ask(PlainSum(grid) if sums else grid, "train")
    assert list(failures(replies)) == ([] if alone_it_works else [BAD + 2])
    if sums:
        (good,) = [reply for reply in replies if reply.has_content()]
        num = good.content.metric_records["metrics"]["num-clients"]
        assert num == NUM_CLIENTS - len(failures(replies))


# -- time ------------------------------------------------------------------------------


def test_a_client_that_is_slow_but_fast_enough_is_left_alone() -> None:
    def handler(message: Message, context: Context) -> Message:
        time.sleep(0.12)
        return tell(message, x=1)

    made = LocalGrid(app_of(handler), num_clients=8, workers=2, client_seconds=0.5)
    with made as grid:
        assert failures(ask(grid)) == {}


def slow_one(message: Message, context: Context) -> Message:
    if index_of(context) == 0:
        time.sleep(6)
    return tell(message, x=1)


def test_time_that_is_up_ends_the_waiting() -> None:
    with LocalGrid(app_of(slow_one), num_clients=4, workers=2) as grid, within(3):
        replies = list(grid.send_and_receive(messages([2, 3]), timeout=0.5))
        assert nodes_of(replies) == [3]


def test_the_next_request_does_not_wait_for_a_slow_client_of_the_last() -> None:
    with LocalGrid(app_of(slow_one), num_clients=4, workers=2) as grid, within(3):
        list(grid.send_and_receive(messages([2, 3]), timeout=0.3))
        assert nodes_of(grid.send_and_receive(messages([3]), timeout=0.3)) in ([3], [])


def test_when_time_is_up_a_sum_is_that_of_those_who_have_answered() -> None:
    def handler(message: Message, context: Context) -> Message:
        time.sleep(0.1)
        return update(message, context)

    with LocalGrid(app_of(handler), num_clients=200, workers=1) as grid, within(2.5):
        replies = PlainSum(grid).send_and_receive(
            messages(grid.get_node_ids(), "train"), timeout=0.5
        )
        assert len(list(replies)) == 1


# -- what only goes wrong after the client has returned --------------------------------


@pytest.mark.parametrize("in_state", [True, False])
def test_a_reply_that_cannot_be_sent_fails_its_client_only(*, in_state: bool) -> None:
    def handler(message: Message, context: Context) -> Message:
        number = 1 << 20_000 if index_of(context) == BAD else 1
        if in_state:
            context.state["x"] = MetricRecord({"x": number})
        return tell(message, x=1 if in_state else number)

    with LocalGrid(app_of(handler), num_clients=NUM_CLIENTS, workers=2) as grid:
        assert list(failures(ask(grid))) == [BAD + 2]


def test_a_reply_that_is_too_large_to_be_added_fails_its_client_only() -> None:
    def handler(message: Message, context: Context) -> Message:
        reply = update(message, context)
        if index_of(context) == BAD:
            large = np.zeros(60 * MEGABYTE, np.uint8)
            reply.content["arrays"] = ArrayRecord({"w": array_of(large)})
        return reply

    made = LocalGrid(
        app_of(handler),
        num_clients=NUM_CLIENTS,
        workers=2,
        memory_bytes=200 * MEGABYTE,
    )
    with made as grid:
        assert list(failures(ask(PlainSum(grid), "train"))) == [BAD + 2]


def test_a_process_that_a_dead_client_has_left_is_not_waited_for() -> None:
    def handler(message: Message, context: Context) -> Message:
        if index_of(context) == 1:
            if os.fork() == 0:
                time.sleep(4)
                os._exit(0)
            os._exit(3)
        return tell(message, x=1)

    with LocalGrid(app_of(handler), num_clients=4, workers=2) as grid, within(2):
        assert list(failures(ask(grid))) == [3]


# -- workers and the process that makes them -------------------------------------------


def test_a_worker_that_dies_between_requests_is_replaced() -> None:
    with LocalGrid(app_of(update), num_clients=6, workers=2) as grid, within(10):
        before = ask(grid, "train")
        os.kill(grid.worker_pids[0], signal.SIGKILL)
        again = ask(grid, "train")
    assert [r.content for r in again] == [r.content for r in before]


def test_without_the_process_that_makes_workers_the_first_loss_is_told() -> None:
    app = app_of(but_one(ending, [1]))
    with LocalGrid(app, num_clients=4, workers=2) as grid, within(10):
        os.kill(nursery_of(grid.worker_pids[0]), signal.SIGKILL)
        with pytest.raises(TransportError, match="was it killed"):
            ask(grid, "train")


def test_after_a_transport_error_the_next_request_works() -> None:
    app = app_of(but_one(ending, [1]))
    with LocalGrid(app, num_clients=4, workers=2) as grid, within(3):
        os.kill(nursery_of(grid.worker_pids[0]), signal.SIGKILL)
        with pytest.raises(TransportError):
            ask(grid, "train")
        assert list(failures(ask(grid, "train"))) == [3]


def test_after_a_transport_error_the_grid_can_be_started_again() -> None:
    app = app_of(but_one(ending, [1]))
    with LocalGrid(app, num_clients=4, workers=2) as grid, within(10):
        os.kill(nursery_of(grid.worker_pids[0]), signal.SIGKILL)
        with pytest.raises(TransportError):
            ask(grid, "train")
        grid.close()
        assert list(failures(ask(grid, "train"))) == [3]


def close_stdout() -> None:
    os.close(1)


def test_stdout_may_be_closed() -> None:
    code = (
        "import sys; from tests.fedge.flower.crowd import *\n"
        "from fedge.flower import LocalGrid\n"
        "grid = LocalGrid(app_of(count), num_clients=2, workers=1)\n"
        "sys.exit(len(failures(ask(grid))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, timeout=30, preexec_fn=close_stdout
    )
    assert done.returncode == 0
