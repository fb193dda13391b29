import logging
import random

import numpy as np
import pytest
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fedge.flower import LocalGrid
from fedge.flower.batching import together, together_of
from fedge.flower.foreign_app import ForeignApp, global_seed
from fedge.flower.records import array_of

client_app = ClientApp()


@client_app.query()
def draw(message: Message, context: Context) -> Message:
    numbers = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    return Message(RecordDict({"m": MetricRecord({"x": numbers})}), reply_to=message)


@client_app.query("broken")
def fail(message: Message, context: Context) -> Message:
    raise RuntimeError(f"client {context.node_config['partition-id']} is broken")


def drawn(seed: int, workers: int, *, group: str = "1", x: float = 0.0) -> list[object]:
    content = RecordDict(
        {
            "a": ArrayRecord({"w": array_of(np.full(2, x))}),
            "c": ConfigRecord({"x": 1}),
        }
    )
    app = ForeignApp(client_app, seed=seed)
    with LocalGrid(app, num_clients=5, workers=workers) as grid:
        replies = grid.send_and_receive(
            Message(content, node, "query", group_id=group)
            for node in grid.get_node_ids()
        )
        told = [reply.content.metric_records["m"]["x"] for reply in replies]
    return [number for numbers in told for number in np.ravel(numbers).tolist()]


def test_what_clients_draw_does_not_depend_on_the_workers() -> None:
    expected = drawn(7, 0)
    assert len(set(map(str, expected))) == 15, "no two numbers are the same"
    assert drawn(7, 1) == expected
    assert drawn(7, 3) == expected


def test_another_seed_or_round_or_content_draws_other_numbers() -> None:
    assert drawn(7, 0) != drawn(8, 0)
    assert drawn(7, 0) != drawn(7, 0, group="2")
    assert drawn(7, 0, group="", x=1.0) != drawn(7, 0, group="", x=2.0)
    assert drawn(7, 0, group="", x=1.0) == drawn(7, 2, group="", x=1.0)


@given(st.integers(0, 2**63 - 1))
def test_the_generators_are_left_as_they_were(seed: int) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    torchs = torch.get_rng_state()
    with global_seed(seed):
        draws = random.random(), float(np.random.rand()), float(torch.rand(()))
    with global_seed(seed):
        again = random.random(), float(np.random.rand()), float(torch.rand(()))
    assert draws == again
    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    assert torch.equal(torchs, torch.get_rng_state())


def test_a_traceback_is_told_once_for_each_line_that_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = LocalGrid(ForeignApp(client_app), num_clients=4, workers=0)
    with caplog.at_level(logging.WARNING):
        replies = list(
            grid.send_and_receive(
                Message(RecordDict(), node, "query.broken")
                for node in grid.get_node_ids()
            )
        )
    assert [reply.error.reason for reply in replies] == [
        f"RuntimeError: client {i} is broken" for i in range(4)
    ]
    told = [r for r in caplog.records if r.name == "fedge.flower.foreign_app"]
    assert len(told) == 1
    assert told[0].exc_info is not None


def test_an_app_that_computes_clients_together_still_does() -> None:
    app = ClientApp()
    function = together(app)(lambda pairs: {})
    assert together_of(ForeignApp(app)) is function
    assert together_of(ForeignApp(client_app)) is None
