import os

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.errors import TransportError
from fedge.flower import LocalGrid, stream_replies
from fedge.flower.progress import Progress, memory_of_all

client_app = ClientApp()


@client_app.query()
def answer(message: Message, context: Context) -> Message:
    if context.node_config["partition-id"] == 1:
        raise RuntimeError("broken")
    metrics = MetricRecord({"pid": os.getpid()})
    return Message(RecordDict({"m": metrics}), reply_to=message)


def progress(num_clients: int = 4, workers: int = 0) -> Progress:
    return Progress(LocalGrid(client_app, num_clients=num_clients, workers=workers))


def messages(layer: Progress) -> list[Message]:
    return [Message(RecordDict(), node, "query") for node in layer.get_node_ids()]


def test_what_passes_is_counted_however_it_passes() -> None:
    layer = progress()
    assert len(list(layer.send_and_receive(messages(layer)))) == 4
    assert len(list(layer.pull_messages(layer.push_messages(messages(layer))))) == 4
    tally = layer.tally()
    assert (tally.asked, tally.answered, tally.failed) == (8, 6, 2)
    assert tally.seconds > 0.0
    assert tally.per_second == pytest.approx(6 / tally.seconds)


def test_what_is_under_way_is_asked_and_not_answered() -> None:
    layer = progress()
    replies = stream_replies(layer, messages(layer))
    next(replies)
    assert (layer.tally().asked, layer.tally().answered) == (1, 1)
    layer.push_messages(messages(layer))
    assert (layer.tally().asked, layer.tally().answered) == (5, 1)


def test_memory_is_that_of_the_workers_too() -> None:
    alone = memory_of_all()
    layer = progress(workers=2)
    assert isinstance(layer.inner, LocalGrid)
    with layer.inner:
        list(layer.send_and_receive(messages(layer)))
        assert layer.tally().memory_bytes > alone / 2
    assert alone > 10e6, "an interpreter with numpy and Flower"


def test_once_it_is_stopped_nothing_passes() -> None:
    layer = progress()
    replies = stream_replies(layer, messages(layer))
    next(replies)
    layer.stop()
    with pytest.raises(TransportError, match="the run was stopped"):
        next(replies)
    with pytest.raises(TransportError, match="the run was stopped"):
        layer.push_messages(messages(layer))
