from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import PeerError
from fedge.flower.entries import ARRAYS, CONFIG, METRICS
from fedge.flower.records import array_of
from fedge.flower.wire import (
    Description,
    EvaluateReply,
    EvaluateRequest,
    ReleaseReply,
    TrainReply,
    TrainRequest,
    task_of,
)
from fedge.strategy import LocalSettings

SIZE = 5
PARAMS = np.linspace(-1, 1, SIZE, dtype=np.float32)
Content = Callable[[], RecordDict]
Read = Callable[[RecordDict], Any]


def train_request(mask: bool = True) -> TrainRequest:
    return TrainRequest(
        params=PARAMS,
        packed_mask=np.array([0b10110000], np.uint8) if mask else None,
        task='{"seed":0}',
        spec_digest="abc",
        round_index=3,
        learning_rate=0.05,
        local=LocalSettings(proximal_mu=0.1, extra={"a": True, "b": 1.5, "c": "d"}),
        weight_form="int4",
    )


MESSAGES: dict[str, tuple[Content, Read]] = {
    "train request": (
        lambda: train_request().to_content(),
        lambda content: TrainRequest.from_content(content, size=SIZE),
    ),
    "train reply": (
        lambda: TrainReply(PARAMS, 12.0, 0.5).to_content(),
        lambda content: TrainReply.from_content(content, size=SIZE),
    ),
    "evaluate request": (
        lambda: EvaluateRequest(PARAMS, "{}", "abc").to_content(),
        lambda content: EvaluateRequest.from_content(content, size=SIZE),
    ),
    "evaluate reply": (
        lambda: EvaluateReply(0.5, 0.9, 12.0, 1.5, 7).to_content(),
        EvaluateReply.from_content,
    ),
    "description": (lambda: Description(4, 7).to_content(), Description.from_content),
    "release reply": (
        lambda: ReleaseReply(7, "rolled_back", "too slow").to_content(),
        ReleaseReply.from_content,
    ),
}


@pytest.mark.parametrize("mask", [True, False])
def test_a_train_request_comes_back_as_it_was(mask: bool) -> None:
    sent = train_request(mask)
    read = TrainRequest.from_content(sent.to_content(), size=SIZE)
    assert read.params.tobytes() == PARAMS.tobytes()
    assert (read.packed_mask is not None) == mask
    assert read.local == sent.local
    assert (read.task, read.spec_digest) == (sent.task, sent.spec_digest)
    assert (read.round_index, read.learning_rate) == (3, 0.05)
    assert read.weight_form == "int4"


@pytest.mark.parametrize("form", ["none", "smallest", "INT4", "x" * 10_000])
def test_a_form_that_no_device_can_train_for_is_refused(form: str) -> None:
    request = replace(train_request(), weight_form=form)
    with pytest.raises(PeerError, match="weight-form"):
        TrainRequest.from_content(request.to_content(), size=SIZE)


def test_replies_come_back_as_they_were() -> None:
    reply = TrainReply.from_content(
        TrainReply(PARAMS, 12.0, 0.5).to_content(), size=SIZE
    )
    assert reply.delta.tobytes() == PARAMS.tobytes()
    assert (reply.num_examples, reply.loss) == (12.0, 0.5)
    for message in (
        EvaluateReply(0.5, 0.9, 12.0, 1.5, 7),
        EvaluateReply(0.5, -3.0, 12.0),
        Description(4, 7),
        ReleaseReply(7, "installed"),
        ReleaseReply(0, "rolled_back", "too slow"),
    ):
        assert type(message).from_content(message.to_content()) == message


def test_an_evaluate_request_comes_back_as_it_was() -> None:
    content = EvaluateRequest(PARAMS, "{}", "abc").to_content()
    read = EvaluateRequest.from_content(content, size=SIZE)
    assert read.params.tobytes() == PARAMS.tobytes()
    assert (read.task, read.spec_digest) == ("{}", "abc")
    assert task_of(content) == "{}"


def entries() -> list[tuple[str, str, str]]:
    return [
        (name, record, entry)
        for name, (make, _) in MESSAGES.items()
        for record, values in make().items()
        for entry in values
        if entry != "mask"
    ]


@pytest.mark.parametrize(("name", "record", "entry"), entries())
def test_a_missing_entry_is_refused(name: str, record: str, entry: str) -> None:
    make, read = MESSAGES[name]
    content = make()
    del content[record][entry]
    with pytest.raises(PeerError, match=entry):
        read(content)


@pytest.mark.parametrize(("name", "record", "entry"), entries())
def test_an_entry_of_another_type_is_refused(
    name: str, record: str, entry: str
) -> None:
    make, read = MESSAGES[name]
    content = make()
    wrong: Any = array_of(np.zeros((2, 2), "<f8")) if record == ARRAYS else [1, 2]
    content[record][entry] = wrong
    with pytest.raises(PeerError, match=entry):
        read(content)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_missing_record_or_one_of_another_kind_is_refused(name: str) -> None:
    make, read = MESSAGES[name]
    for record in list(make()):
        content = make()
        del content[record]
        with pytest.raises(PeerError, match=f"record {record!r} is missing"):
            read(content)
        content[record] = MetricRecord() if record != METRICS else ConfigRecord()
        with pytest.raises(PeerError, match=f"record {record!r} is missing"):
            read(content)


NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = [
    ("train request", CONFIG, "round", -1),
    ("train request", CONFIG, "round", True),
    ("train request", CONFIG, "learning-rate", NAN),
    ("train request", CONFIG, "learning-rate", -0.1),
    ("train request", CONFIG, "proximal-mu", INF),
    ("train request", CONFIG, "proximal-mu", -1.0),
    ("train request", CONFIG, "extra", "[1]"),
    ("train request", CONFIG, "extra", '{"a": [1]}'),
    ("train request", CONFIG, "extra", '{"a": null}'),
    ("train request", CONFIG, "extra", "{"),
    ("train request", CONFIG, "extra", "[" * 60_000),
    ("train request", CONFIG, "extra", '{"a": 1' + "0" * 5000 + "}"),
    ("train request", CONFIG, "extra", '"' + "x" * 70_000 + '"'),
    ("train reply", METRICS, "num-examples", 0),
    ("train reply", METRICS, "num-examples", -3.0),
    ("train reply", METRICS, "num-examples", NAN),
    ("train reply", METRICS, "num-examples", 2**30),
    ("train reply", METRICS, "num-examples", 10**400),
    ("train reply", METRICS, "train_loss", NAN),
    ("train reply", METRICS, "train_loss", INF),
    ("evaluate reply", METRICS, "num-examples", 0.0),
    ("evaluate reply", METRICS, "num-examples", INF),
    ("evaluate reply", METRICS, "score", NAN),
    ("evaluate reply", METRICS, "score", 1.5),
    ("evaluate reply", METRICS, "loss", INF),
    ("evaluate reply", METRICS, "latency-ms", -1.0),
    ("evaluate reply", METRICS, "version", -1),
    ("description", CONFIG, "partition-id", -1),
    ("description", CONFIG, "version", 10**30),
    ("release reply", CONFIG, "version", -1),
    ("release reply", CONFIG, "outcome", "banana"),
    ("release reply", CONFIG, "outcome", "x" * 10**6),
]


@pytest.mark.parametrize(("name", "record", "entry", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_in_few_words(
    name: str, record: str, entry: str, value: int | float | str
) -> None:
    make, read = MESSAGES[name]
    content = make()
    values: dict[str, Any] = content[record]  # type: ignore[assignment]  # like one
    values[entry] = value
    with pytest.raises(PeerError, match=entry) as caught:
        read(content)
    assert len(str(caught.value)) < 300


def test_a_long_reason_is_cut() -> None:
    content = ReleaseReply(7, "rolled_back", "x" * 10**6).to_content()
    assert len(ReleaseReply.from_content(content).reason) == 500


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
@pytest.mark.parametrize("name", ["train request", "train reply", "evaluate request"])
def test_a_model_of_another_size_is_refused(name: str, size: int) -> None:
    make, read = MESSAGES[name]
    content = make()
    (entry,) = {"params", "delta"} & set(content[ARRAYS])
    content[ARRAYS][entry] = array_of(np.zeros(size, np.float32))  # type: ignore[assignment]  # see Flower
    with pytest.raises(PeerError, match=rf"{entry}.*need float32 \(5,\)"):
        read(content)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**310),
    st.floats(),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.lists(st.integers(), max_size=3),
    st.lists(st.text(max_size=3), max_size=3),
)
ARRAY_VALUES: st.SearchStrategy[np.ndarray[Any, Any]] = st.sampled_from(
    [
        np.zeros(SIZE),
        np.zeros((SIZE, 1), np.float32),
        np.zeros(0, np.float32),
        np.array(1, np.uint8),
        np.full(SIZE, np.nan, np.float32),
    ]
)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_mutated_message_is_read_or_refused_but_never_crashes(
    data: st.DataObject,
) -> None:
    make, read = MESSAGES[data.draw(st.sampled_from(sorted(MESSAGES)))]
    content = make()
    record = content[data.draw(st.sampled_from(sorted(content)))]
    entry = data.draw(st.sampled_from([*sorted(record), "more"]))
    if isinstance(record, ArrayRecord):
        record[entry] = array_of(data.draw(ARRAY_VALUES))
    else:
        try:
            record[entry] = data.draw(VALUES)
        except TypeError:  # Flower's record does not hold such a value
            del content[next(iter(content))]
    with suppress(PeerError):
        read(content)
