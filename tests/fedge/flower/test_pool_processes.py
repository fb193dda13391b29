"""What workers cost, what they print, and that none is left."""

import gc
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict

from fedge.errors import ConfigError
from fedge.flower import LocalGrid, PlainSum
from fedge.flower.records import array_of
from tests.fedge.flower.crowd import (
    app_of,
    ask,
    count,
    failures,
    index_of,
    messages,
    nursery_of,
    still_there,
    tell,
    told,
    within,
)

MEGABYTE = 1_000_000


def processes_of(grid: LocalGrid) -> list[int]:
    """Return all processes that belong to a grid."""
    return [nursery_of(grid.worker_pids[0]), *grid.worker_pids]


def started(num_clients: int = 4, workers: int = 2) -> LocalGrid:
    grid = LocalGrid(app_of(count), num_clients=num_clients, workers=workers)
    ask(grid)
    return grid


# -- the end ---------------------------------------------------------------------------


def test_a_closed_grid_leaves_no_process() -> None:
    grid = started()
    processes = processes_of(grid)
    assert len(processes) == 3
    grid.close()
    assert still_there(processes) == []
    assert grid.worker_pids == []
    grid.close()


def test_a_grid_that_nobody_holds_leaves_no_process() -> None:
    grid = started()
    processes = processes_of(grid)
    del grid
    gc.collect()
    assert still_there(processes) == []


def test_workers_that_compute_are_ended_too() -> None:
    def handler(message: Message, context: Context) -> Message:
        time.sleep(60)
        return tell(message, x=1)

    with LocalGrid(app_of(handler), num_clients=4, workers=2) as grid, within(10):
        processes = processes_of(grid)
        list(grid.send_and_receive(messages([2, 3]), timeout=0.2))
    assert still_there(processes) == []


def test_a_coordinator_that_is_killed_leaves_no_process() -> None:
    code = (
        "import os, signal; from tests.fedge.flower.test_pool_processes import *\n"
        "grid = started()\n"
        "print(*processes_of(grid), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = run_alone(code)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    assert still_there(pids) == []


def run_alone(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60
    )


def test_grids_may_be_closed_in_any_order() -> None:
    code = (
        "from tests.fedge.flower.test_pool_processes import *\n"
        "order = [1, 0, 2]\n"
        "grids = [started() for _ in order]\n"
        "with within(2):\n"
        "    for place in order: grids[place].close()\n"
        "print('fine')\n"
    )
    assert run_alone(code).stdout == "fine\n"


# -- what goes in and out --------------------------------------------------------------


def test_what_clients_print_reaches_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    def handler(message: Message, context: Context) -> Message:
        print(f"client {index_of(context)} speaks")
        print(f"client {index_of(context)} complains", file=sys.stderr)
        return tell(message, x=1)

    with LocalGrid(app_of(handler), num_clients=5, workers=2) as grid:
        ask(grid)
    out, err = capfd.readouterr()
    assert sorted(out.split("\n")[:-1]) == [f"client {i} speaks" for i in range(5)]
    assert err.count("complains") == 5


def test_nothing_is_printed_twice() -> None:
    code = (
        "from tests.fedge.flower.test_pool_processes import *\n"
        "print('before', end='')\n"  # in the buffer when the processes are forked
        "grid = started()\n"
        "grid.close()\n"
        "print('after')\n"
    )
    done = run_alone(code)
    assert (done.stdout, done.stderr) == ("beforeafter\n", "")


def test_threads_of_the_coordinator_do_not_hang_a_worker() -> None:
    code = (
        "import torch; from tests.fedge.flower.test_pool_processes import *\n"
        "torch.set_num_threads(2)\n"
        "a = torch.ones(600, 600); b = a @ a  # the OpenMP threads are there now\n"
        "(a + a).sum(); torch.nn.functional.conv2d(a[None, None], a[None, None])\n"
        "def handler(message, context):\n"
        "    assert torch.get_num_threads() == 2\n"
        "    return tell(message, x=float((a @ a)[0, 0] + a.sum()))\n"
        "grid = LocalGrid(app_of(handler), num_clients=6, workers=2, threads=2)\n"
        "with grid, within(30):\n"
        "    assert told(ask(grid), 'x') == [600.0 + 600.0**2] * 6\n"
        "print('fine')\n"
    )
    done = run_alone(code)
    assert done.stdout == "fine\n", done.stderr


# -- memory ----------------------------------------------------------------------------


def test_a_million_clients_cost_nothing_until_they_are_asked() -> None:
    tracemalloc.start()
    try:
        with LocalGrid(app_of(count), num_clients=10**6, workers=2) as grid:
            replies = ask(grid, nodes=range(500_000, 500_010))
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told(replies, "times") == [0] * 10
    assert peak < 20 * MEGABYTE


def high_water_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_memory_does_not_grow_with_the_cohort_of_a_sum() -> None:
    size = 100_000
    model = RecordDict({"a": ArrayRecord({"w": array_of(np.ones(size, np.float32))})})

    def handler(message: Message, context: Context) -> Message:
        values = np.full(size, index_of(context) / 1000, np.float32)
        metrics = MetricRecord({"num-examples": 1})
        arrays = ArrayRecord({"w": array_of(values)})
        return Message(RecordDict({"a": arrays, "m": metrics}), reply_to=message)

    def peaks(num: int) -> tuple[int, int]:
        tracemalloc.start()
        with LocalGrid(app_of(handler), num_clients=num, workers=2) as grid:
            sent = messages(grid.get_node_ids(), "train", model)
            (one,) = PlainSum(grid).send_and_receive(sent)
            here = tracemalloc.get_traced_memory()[1]
            there = max(high_water_bytes(pid) for pid in grid.worker_pids)
        tracemalloc.stop()
        assert one.content.metric_records["m"]["num-clients"] == num
        return here, there

    few, many = peaks(150), peaks(1500)
    # One model is 400 kB. Messages and node ids may grow, by a few kilobytes each.
    assert many[0] < few[0] + 1350 * 6_000
    assert many[1] < few[1] + 25 * MEGABYTE


def test_a_worker_needs_memory_for_the_messages_of_its_own_clients() -> None:
    def handler(message: Message, context: Context) -> Message:
        return tell(message, x=high_water_bytes(os.getpid()))

    def content(value: int) -> RecordDict:
        array = array_of(np.full(250_000, value, np.float64))
        return RecordDict({"a": ArrayRecord({"w": array})})

    with LocalGrid(app_of(handler), num_clients=60, workers=2) as grid:
        sent = [messages([node], content=content(node))[0] for node in range(2, 62)]
        before = max(high_water_bytes(pid) for pid in grid.worker_pids)
        list(grid.send_and_receive(sent))
        after = max(high_water_bytes(pid) for pid in grid.worker_pids)
    assert after - before < 60 * 2 * MEGABYTE / 2


def test_freed_memory_of_one_client_is_there_for_the_next() -> None:
    def handler(message: Message, context: Context) -> Message:
        np.ones(15 * MEGABYTE).sum()
        return tell(message, x=1)

    made = LocalGrid(
        app_of(handler), num_clients=10, workers=1, memory_bytes=200 * MEGABYTE
    )
    with made as grid:
        assert failures(ask(grid)) == {}


# -- settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"workers": -1}, r"workers: -1 not in \[0, 1024\]"),
        ({"workers": 1025}, r"workers: 1025 not in \[0, 1024\]"),
        ({"threads": 0}, r"threads: 0 not in \[1, 1024\]"),
        ({"client_seconds": -0.5}, "client_seconds: -0.5 must be at least 0"),
        ({"client_seconds": float("nan")}, "client_seconds: nan must be"),
        ({"memory_bytes": -1}, "memory_bytes: -1 must be at least 0"),
    ],
)
def test_a_number_out_of_range_is_refused(
    options: dict[str, int], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        LocalGrid(app_of(count), num_clients=3, **options)  # type: ignore[arg-type]


def test_there_are_no_more_workers_than_clients_and_none_before_they_are_needed() -> (
    None
):
    grid = LocalGrid(app_of(count), num_clients=2, workers=9)
    assert grid.worker_pids == []
    with grid:
        assert len(grid.worker_pids) == 2
        assert len(set(grid.worker_pids) | {os.getpid()}) == 3
    with LocalGrid(app_of(count), num_clients=2, workers=0) as here:
        assert told(ask(here), "times") == [0, 0]
        assert here.worker_pids == []
