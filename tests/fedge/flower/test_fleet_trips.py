from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedge.fleet import IDEAL, Fleet, Outcome
from fedge.flower.fleet_trips import SMALL_REPLY_BYTES, Dispatcher, in_order, phase_of
from fedge.flower.partial import make_partial
from fedge.flower.records import array_of
from fedge.flower.secure_messages import RECORD, Step
from fedge.flower.wire import DESCRIBE
from tests.fedge.flower.test_virtual_fleet import World, messages

# A byte a second each way.
SLOW = replace(IDEAL, down_bits_per_second=8.0, up_bits_per_second=8.0)


def dispatcher() -> Dispatcher:
    World([0.0]).grid()  # makes this process the task that may make messages
    fleet = Fleet(num_devices=4, seed=0, kinds=((SLOW, 1.0),))
    return Dispatcher(fleet, range(2, 6), lambda *_: 0.0)


def step_message(step: str, *, with_model: bool = False) -> Message:
    content = RecordDict({RECORD: ConfigRecord({"step": step})})
    if with_model:
        content["a"] = ArrayRecord({"w": array_of(np.zeros(1000, np.float32))})
    return Message(content, 2, "train", group_id="0.0")


def test_a_phase_is_the_message_type_and_the_step_of_secure_aggregation() -> None:
    dispatcher()
    assert phase_of(messages([0], "query")[0]) == "query"
    assert phase_of(step_message("mask")) == "train:mask"
    assert phase_of(step_message("nonsense")) == "train"


@pytest.mark.parametrize(
    "message",
    [
        lambda: messages([0], DESCRIBE)[0],
        lambda: step_message(Step.hello),
        lambda: messages([9])[0],
    ],
    ids=["describe", "hello", "another node"],
)
def test_what_a_restarted_coordinator_asks_again_takes_no_time(
    message: Callable[[], Message],
) -> None:
    trip = dispatcher().trip(message(), 7.0)
    assert (trip.device, trip.ends_seconds, trip.answers) == (None, 7.0, True)


def test_a_masked_model_comes_back_in_another_step_than_it_went_out() -> None:
    trips = dispatcher()
    fit = trips.trip(step_message(Step.fit, with_model=True), 0.0).event
    mask = trips.trip(step_message(Step.mask), 0.0).event
    unmask = trips.trip(step_message(Step.unmask), 0.0).event
    assert fit.bytes_up == unmask.bytes_up == SMALL_REPLY_BYTES
    assert fit.bytes_down > 4000
    assert 4000 <= mask.bytes_up <= fit.bytes_down
    assert mask.download_seconds < 100
    assert mask.upload_seconds >= 4000


@given(st.permutations(range(4)), st.integers(0, 4))
def test_replies_are_put_in_order_and_sums_come_last(
    order: list[int], num_single: int
) -> None:
    trips = [dispatcher().trip(message, 0.0) for message in messages(range(4))]
    replies = [Message(RecordDict(), reply_to=trips[place].message) for place in order]
    singles, summed = replies[:num_single], replies[num_single:]
    if summed:
        nodes = [reply.metadata.src_node_id for reply in summed]
        partial = make_partial(summed[0], RecordDict(), nodes, num_bytes=40)
        singles.insert(num_single // 2, partial)
    together = [
        [trip.device for trip in some] for some, _ in in_order(trips, iter(singles))
    ]
    expected = [[place] for place in order[:num_single]]
    expected += [sorted(order[num_single:])] if summed else []
    assert together == sorted(expected, key=max)


def test_a_partial_sum_weighs_what_its_parts_weighed() -> None:
    (trip,) = [dispatcher().trip(message, 0.0) for message in messages([1])]
    reply = Message(RecordDict(), reply_to=trip.message)
    partial = make_partial(reply, RecordDict(), [3, 4], num_bytes=50)
    event = trip.known(trip.ends_seconds, partial)
    assert (event.outcome, event.bytes_up) == (Outcome.ok, 25)


def test_a_node_that_is_asked_twice_is_told_apart_by_its_messages() -> None:
    trips = [dispatcher().trip(message, 0.0) for message in messages([1, 1])]
    for number, trip in enumerate(trips):
        trip.message.metadata.__dict__["_message_id"] = f"m{number}"
    second, first = (Message(RecordDict(), reply_to=t.message) for t in trips[::-1])
    assert [reply for _, reply in in_order(trips, iter([second, first]))] == [
        first,
        second,
    ]
