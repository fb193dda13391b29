from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from flwr.app import (
    Array,
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

from fedge.flower import GridLayer, LocalGrid, stream_replies
from fedge.flower.checksums import Checksums, checksum, checksum_mod
from fedge.flower.crashing import with_mod
from fedge.flower.damage import bit_flipped, truncated, with_nan
from fedge.flower.partial import Reduction
from fedge.flower.records import array_of

CHOICES = st.integers(0, 2**64 - 1)


def content() -> RecordDict:
    arrays = ArrayRecord({"w": array_of(np.arange(9, dtype=np.float32))})
    metrics = MetricRecord({"num-examples": 10, "loss": 0.5})
    config = ConfigRecord({"data": b"0123456789", "text": "abc"})
    return RecordDict({"arrays": arrays, "metrics": metrics, "config": config})


@given(choice=CHOICES)
def test_a_turned_bit_is_always_seen(choice: int) -> None:
    assert checksum(bit_flipped(content(), choice)) != checksum(content())


@given(choice=CHOICES)
def test_a_cut_and_a_nan_are_seen(choice: int) -> None:
    whole = checksum(content())
    assert checksum(truncated(content(), choice)) != whole
    assert checksum(with_nan(content(), choice)) != whole


def test_names_types_and_shapes_count() -> None:
    data = array_of(np.ones(4, np.float32)).data
    arrays = [
        RecordDict({key: ArrayRecord({name: Array(dtype, shape, "numpy", data)})})
        for key in ("a", "b")
        for name in ("v", "w")
        for dtype in ("float32", "int32")
        for shape in ((4,), (2, 2))
    ]
    assert len({checksum(one) for one in arrays}) == 16


class Tampering(GridLayer):
    """Changes every reply of every second device."""

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        for reply in stream_replies(self.inner, messages, timeout=timeout):
            if reply.metadata.src_node_id % 2:
                reply.content.metric_records["metrics"]["loss"] = 0.25
            yield reply


def grid(*, checked: bool = True) -> LocalGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(content(), reply_to=message)

    app = with_mod(app, checksum_mod) if checked else app
    return LocalGrid(app, num_clients=4, workers=0)


def ask(layer: Checksums) -> list[Message]:
    return list(layer.stream([Message(RecordDict(), n, "train") for n in (2, 3, 4, 5)]))


def test_what_arrives_whole_is_passed_on_as_it_was_sent() -> None:
    assert [reply.content for reply in ask(Checksums(grid()))] == [content()] * 4


def test_what_was_changed_becomes_an_error_of_its_device() -> None:
    replies = ask(Checksums(Tampering(grid())))
    failed = [r.metadata.src_node_id for r in replies if r.has_error()]
    assert failed == [3, 5]
    assert replies[1].error.reason == "reply: damaged on the way (checksum)"


def test_a_reply_without_a_checksum_is_refused() -> None:
    replies = ask(Checksums(grid(checked=False)))
    assert {reply.error.reason for reply in replies} == {"reply: no checksum"}


@pytest.mark.parametrize("value", ["1", 1.5, b"1", [1]])
def test_a_checksum_of_another_kind_fits_nothing(value: object) -> None:
    class Forging(GridLayer):
        def stream(
            self,
            messages: Iterable[Message],
            *,
            timeout: float | None = None,
            reduction: Reduction | None = None,
        ) -> Iterator[Message]:
            for reply in stream_replies(self.inner, messages, timeout=timeout):
                record = ConfigRecord({"crc32": value})  # type: ignore[dict-item]
                reply.content["fedge.checksum"] = record
                yield reply

    assert all(reply.has_error() for reply in ask(Checksums(Forging(grid()))))
