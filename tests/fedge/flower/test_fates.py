from dataclasses import replace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fedge.flower import LocalGrid
from fedge.flower.fates import Trip, draw, happens, is_offline
from fedge.flower.secure_messages import RECORD, Step, request

TRIP = Trip("3.0", 7, "train")
SEEDS = st.integers(0, 2**63 - 1)


def trip_of(kind: str, content: RecordDict | None = None) -> Trip:
    LocalGrid(ClientApp(), num_clients=1)  # Flower makes messages for a task only
    return Trip.of(Message(content or RecordDict(), 7, kind, group_id="3.0"))


@given(seed=SEEDS)
def test_a_draw_depends_on_every_part_of_the_trip(seed: int) -> None:
    trips = [
        TRIP,
        replace(TRIP, group="3.1"),
        replace(TRIP, node=8),
        replace(TRIP, kind="train:mask"),
    ]
    draws = {draw(seed, trip, "nan") for trip in trips}
    assert len(draws | {draw(seed, TRIP, "drop"), draw(seed + 1, TRIP, "nan")}) == 6


@given(seed=SEEDS, low=st.floats(0, 1), high=st.floats(0, 1))
def test_what_happens_rarely_happens_at_a_higher_chance_too(
    seed: int, low: float, high: float
) -> None:
    low, high = sorted((low, high))
    assert happens(low, seed, TRIP, "nan") <= happens(high, seed, TRIP, "nan")


def test_a_chance_is_a_share_of_the_trips() -> None:
    hits = sum(happens(0.3, 0, replace(TRIP, node=n), "nan") for n in range(2000))
    # 2000 draws of 0.3: 600, with a standard deviation of 20.5.
    assert abs(hits - 600) < 5 * 20.5


def test_without_a_chance_nothing_happens() -> None:
    assert not any(happens(0.0, seed, TRIP, "nan") for seed in range(100))


def test_faults_concern_training_only() -> None:
    assert trip_of("train").may_fail
    assert not trip_of("evaluate").may_fail
    assert not is_offline(0.999, 0, trip_of("query.release"))


@pytest.mark.parametrize("step", [Step.fit, Step.mask, Step.confirm, Step.unmask])
def test_each_trip_of_a_session_has_its_own_fate(step: Step) -> None:
    content = RecordDict({RECORD: request(step)})
    assert trip_of("train", content) == replace(TRIP, kind=f"train:{step}")


def test_an_introduction_does_not_fail_but_may_meet_an_offline_device() -> None:
    hello = trip_of("train", RecordDict({RECORD: request(Step.hello)}))
    assert not hello.may_fail
    assert is_offline(0.999, 0, hello)
    assert trip_of("train", RecordDict({RECORD: request(Step.fit)})).may_fail


def test_a_device_is_offline_for_all_trips_of_a_round_or_for_none() -> None:
    kinds = ["train", "train:fit", "train:mask", "train:unmask"]
    for node in range(100):
        trips = [replace(TRIP, node=node, kind=kind) for kind in kinds]
        assert len({is_offline(0.5, 0, trip) for trip in trips}) == 1


def test_an_unknown_step_is_nobodys_business_here() -> None:
    content = RecordDict({RECORD: ConfigRecord({"step": "dance"})})
    assert trip_of("train", content) == TRIP
