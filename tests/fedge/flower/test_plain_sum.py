import itertools
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedge.flower import LocalGrid, PlainSum
from fedge.flower.partial import Reduction
from fedge.flower.plain_total import NUM_CLIENTS
from fedge.flower.records import array_of, read_array

SIZE = 50
Arrays = dict[str, np.ndarray[Any, Any]]


class Scripted(LocalGrid):
    """A grid whose nodes answer what a test has written down."""

    def __init__(self, contents: Sequence[RecordDict | Error]) -> None:
        super().__init__(ClientApp(), num_clients=max(1, len(contents)))
        self.contents = contents
        self.sent = 0

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        for message, content in zip(messages, self.contents, strict=True):
            self.sent += 1
            message.metadata.__dict__["_message_id"] = str(self.sent)
            if isinstance(content, Error):
                yield Message(content, reply_to=message)
            else:
                yield Message(content, reply_to=message)


Metric = int | float | list[int] | list[float]


def reply(arrays: Arrays, weight: Metric | None = 10, **metrics: Metric) -> RecordDict:
    record = ArrayRecord({name: array_of(array) for name, array in arrays.items()})
    numbers = MetricRecord(dict(metrics))
    if weight is not None:
        numbers["num-examples"] = weight
    return RecordDict({"arrays": record, "metrics": numbers})


def update(seed: int, size: int = SIZE) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=size).astype(np.float32)}


def run(
    contents: Sequence[RecordDict | Error], kind: str = "train", enough: int = 0
) -> tuple[list[Message], list[Message], Scripted]:
    """Return the good replies and the failures that PlainSum makes of these."""
    grid = Scripted(contents)
    messages = [
        Message(RecordDict(), node, kind) for node in range(2, 2 + len(contents))
    ]
    replies = list(PlainSum(grid, enough=enough).stream(messages))
    good = [message for message in replies if not message.has_error()]
    return good, [message for message in replies if message.has_error()], grid


def mean_of(message: Message) -> Arrays:
    (record,) = message.content.array_records.values()
    return {name: read_array(array) for name, array in record.items()}


def test_a_cohort_becomes_one_reply_with_the_weighted_means() -> None:
    a, b = update(1)["w"], update(2)["w"]
    good, failed, _ = run([reply({"w": a}, 10, loss=1.0), reply({"w": b}, 30, loss=3)])
    (one,) = good
    metrics = one.content["metrics"]
    np.testing.assert_allclose(mean_of(one)["w"], (a + 3 * b) / 4, atol=1e-6)
    assert metrics == {"num-examples": 40.0, "loss": 2.5, NUM_CLIENTS: 2}
    assert one.metadata.message_type == "train"
    assert not failed


def test_shapes_dtypes_and_names_are_kept() -> None:
    arrays: Arrays = {
        "matrix": np.ones((2, 3), np.float32),
        "number": np.array(7, np.int64),
        "double": np.ones(2, np.float64),
        "empty": np.ones((0, 4), np.float32),
        "bytes": np.array([254, 255], np.uint8),
    }
    (one,), _, _ = run([reply(arrays), reply(arrays, 3)])
    mean = mean_of(one)
    assert list(mean) == list(arrays)
    for name, array in arrays.items():
        assert mean[name].dtype == array.dtype
        assert mean[name].shape == array.shape
        np.testing.assert_array_equal(mean[name], array)


def test_whole_numbers_are_rounded_and_not_cut_off() -> None:
    (one,), _, _ = run([reply({"n": np.array([1])}, 1), reply({"n": np.array([2])}, 9)])
    assert mean_of(one)["n"].tolist() == [2]


FINE = reply(update(1), loss=0.5)
BAD = {
    "nan": reply({"w": np.full(SIZE, np.nan, np.float32)}, loss=0.5),
    "infinite": reply({"w": np.full(SIZE, np.inf, np.float32)}, loss=0.5),
    "another shape": reply({"w": np.zeros((SIZE, 1), np.float32)}, loss=0.5),
    "another size": reply(update(1, SIZE + 1), loss=0.5),
    "another dtype": reply({"w": np.zeros(SIZE)}, loss=0.5),
    "another name": reply({"v": update(1)["w"]}, loss=0.5),
    "one more array": reply({**update(1), "v": np.zeros(1)}, loss=0.5),
    "no weight": reply(update(1), None, loss=0.5),
    "a list as weight": reply(update(1), [1, 2], loss=0.5),
    "weight zero": reply(update(1), 0, loss=0.5),
    "negative weight": reply(update(1), -5, loss=0.5),
    "weight nan": reply(update(1), float("nan"), loss=0.5),
    "huge weight": reply(update(1), 2.0**40, loss=0.5),
    "a weight that is no float": reply(update(1), 10**400, loss=0.5),
    "no loss": reply(update(1)),
    "another metric": reply(update(1), loss=0.5, more=1),
    "loss nan": reply(update(1), loss=float("nan")),
    "a loss that is no float": reply(update(1), loss=10**400),
    "huge values": reply({"w": np.full(SIZE, 3e38, np.float32)}, loss=0.5),
    "nothing": RecordDict(),
    "two array records": RecordDict({**FINE, "second": ArrayRecord()}),
    "a lying array": RecordDict(
        {
            "arrays": ArrayRecord(
                {"w": Array("float32", (SIZE,), "numpy.ndarray", b"\x93NUMPY\x01\x00(")}
            ),
            "metrics": MetricRecord({"num-examples": 10, "loss": 0.5}),
        }
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_reply_is_left_out_and_told(name: str) -> None:
    (alone,), _, _ = run([FINE, reply(update(2), 7, loss=1.0)])
    good, failed, _ = run([FINE, BAD[name], reply(update(2), 7, loss=1.0)])
    assert good[0].content == alone.content
    assert [message.metadata.src_node_id for message in failed] == [3]
    assert failed[0].error.reason


MALFORMED_BY_ITSELF = ["nan", "no weight", "weight zero", "huge values", "nothing"]


@pytest.mark.parametrize("name", MALFORMED_BY_ITSELF)
def test_a_bad_reply_that_comes_first_does_not_end_the_round(name: str) -> None:
    good, failed, grid = run([BAD[name], FINE, FINE])
    assert grid.sent == 3
    assert good[0].content["metrics"][NUM_CLIENTS] == 2
    assert len(failed) == 1


def test_the_least_whole_number_does_not_slip_under_the_overflow_check() -> None:
    least = np.full(SIZE, np.iinfo(np.int64).min)
    good, failed, _ = run([reply({"w": least}, 1)])
    assert not good
    assert len(failed) == 1


def test_list_metrics_are_left_out() -> None:
    (one,), failed, _ = run([reply(update(1), losses=[1.0, 2.0], loss=1.0), FINE])
    assert "losses" not in one.content["metrics"]
    assert not failed


def test_metrics_in_another_order_are_the_same_metrics() -> None:
    first = reply(update(1), a=1.0, b=3.0)
    (one,), failed, _ = run([first, reply(update(1), b=5.0, a=2.0)])
    assert not failed
    assert one.content["metrics"] == {
        "a": 1.5,
        "b": 4.0,
        "num-examples": 20.0,
        NUM_CLIENTS: 2,
    }


def test_nobody_good_makes_no_reply() -> None:
    good, failed, _ = run([BAD["nan"], Error(1, "broken")])
    assert not good
    assert len(failed) == 2
    assert run([])[:2] == ([], [])


def test_enough_good_replies_end_the_waiting() -> None:
    contents: list[RecordDict | Error] = [
        Error(1, "broken"),
        FINE,
        BAD["nan"],
        FINE,
        FINE,
        FINE,
    ]
    (one,), failed, grid = run(contents, enough=2)
    assert one.content["metrics"][NUM_CLIENTS] == 2
    assert grid.sent == 4
    assert len(failed) == 2


def test_evaluation_passes_unchanged() -> None:
    contents = [reply(update(1)), reply(update(2))]
    good, _, _ = run(contents, kind="evaluate")
    assert [message.content for message in good] == contents


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(6)), st.integers(0, 2**32))
@example([2, 1, 0, 3, 4, 5], 0)
def test_the_order_of_the_replies_does_not_change_a_bit(
    order: list[int], seed: int
) -> None:
    weights = np.random.default_rng(seed).uniform(0, 1000, 6)
    contents = [reply(update(i), float(w), loss=0.1 * i) for i, w in enumerate(weights)]
    (one,), _, _ = run(contents)
    (other,), _, _ = run([contents[i] for i in order])
    assert one.content == other.content


def test_fractional_weights_are_added_exactly() -> None:
    weights = [0.1, 0.2, 0.3]
    (one,), _, _ = run([reply(update(1), weight) for weight in weights])
    (other,), _, _ = run([reply(update(1), weight) for weight in weights[::-1]])
    assert one.content == other.content


def client_app(size: int = SIZE) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        server_round = message.content.config_records["config"]["server-round"]
        assert isinstance(server_round, int)
        rng = np.random.default_rng([place, server_round])
        (record,) = message.content.array_records.values()
        model = read_array(record["w"])
        trained = model + rng.normal(0, 0.1, model.shape).astype(np.float32)
        return Message(
            reply({"w": trained}, 5 + place, loss=float(rng.uniform())),
            reply_to=message,
        )

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": 5 + place, "accuracy": place / 10})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


@pytest.mark.parametrize("strategy_class", [flower.FedAvg, flower.FedAdam])
def test_flowers_strategies_end_in_the_same_model_with_and_without(
    strategy_class: type[flower.FedAvg],
) -> None:
    def train(wrap: type[PlainSum] | None) -> tuple[Any, Any]:
        base: Grid = LocalGrid(client_app(), num_clients=6)
        strategy = strategy_class()
        result = strategy.start(
            wrap(base) if wrap else base,
            ArrayRecord({"w": array_of(np.zeros(SIZE, np.float32))}),
            num_rounds=3,
        )
        return read_array(result.arrays["w"]), result.evaluate_metrics_clientapp

    plain, plain_metrics = train(None)
    summed, summed_metrics = train(PlainSum)
    # Float32 sums of six models by Flower, exact sums here. FedAdam divides by the root
    # of the squared update, which magnifies what is nearly zero.
    np.testing.assert_allclose(summed, plain, atol=2e-6)
    # Flower adds replies in the order of a set, so its last bit changes by itself.
    for server_round, metrics in plain_metrics.items():
        assert dict(summed_metrics[server_round]) == pytest.approx(dict(metrics))


def test_memory_does_not_grow_with_the_cohort() -> None:
    size = 100_000
    content = RecordDict({"arrays": ArrayRecord({"w": array_of(np.ones(size))})})

    def peak(num_clients: int) -> int:
        app, serial = ClientApp(), itertools.count()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            values = np.full(size, next(serial) / 1000, np.float32)
            return Message(reply({"w": values}), reply_to=message)

        grid = PlainSum(LocalGrid(app, num_clients=num_clients, workers=0))
        nodes = list(grid.get_node_ids())
        messages = [Message(content, node, "train") for node in nodes]
        tracemalloc.start()
        (one,) = grid.stream(messages)
        largest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert one.content["metrics"][NUM_CLIENTS] == num_clients
        return largest

    few, many = peak(60), peak(240)
    # Contexts and messages may grow (a few kilobytes each), models (400 kB) may not.
    # Flower's records are reference cycles: some are there until Python collects them.
    assert many < few + 180 * 20_000
