import random
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.config.fleet import AvailabilityKind, DropPhase, FleetConfig
from fedge.errors import ConfigError
from fedge.fleet import IDEAL, Diurnal, Fleet, Journey, Outcome, Phase, make_fleet
from tests.fedge.fleet.kit import SIMPLE, WORK

ZOO = FleetConfig(
    profiles={"raspberry_pi_4": 2.0, "phone": 1.0, "laptop": 1.0},
    straggler_share=0.25,
    straggler_factor=3.0,
    drop_probability=0.3,
    availability=AvailabilityKind.markov,
)
SURE = Fleet(num_devices=400, seed=0, kinds=((SIMPLE, 1.0),), drop_probability=0.999999)


def journey(
    fleet: Fleet, device: int = 0, *, fate: str = "1", start: float = 0.0
) -> Journey:
    return fleet.journey(
        device, phase="train", fate=fate, work=WORK, start_seconds=start
    )


questions = st.tuples(
    st.integers(0, 999_999), st.sampled_from(["0.0", "0.1", "7.2"]), st.floats(0, 1e7)
)


@given(st.lists(questions, min_size=1, max_size=8), st.randoms(), st.integers(0, 2**63))
def test_equal_seeds_give_equal_fleets_whatever_is_asked_in_which_order(
    asked: list[tuple[int, str, float]], shuffler: random.Random, seed: int
) -> None:
    one, other = (make_fleet(ZOO, num_devices=10**6, seed=seed) for _ in range(2))
    answers = {q: journey(one, q[0], fate=q[1], start=q[2]) for q in asked}
    again = list(asked)
    shuffler.shuffle(again)
    assert all(
        journey(other, device, fate=fate, start=start) == answers[device, fate, start]
        for device, fate, start in again
    )


def test_another_seed_gives_another_fleet() -> None:
    fleets = [make_fleet(ZOO, num_devices=100, seed=seed) for seed in (0, 1)]
    one, other = ([fleet.device(i) for i in range(100)] for fleet in fleets)
    assert one != other


def test_devices_are_mixed_by_their_shares() -> None:
    fleet = make_fleet(ZOO, num_devices=4000, seed=5)
    devices = [fleet.device(i) for i in range(4000)]
    counts = Counter(device.profile.name for device in devices)
    # 4000 draws: standard deviations of 32 and 27.
    assert counts["raspberry_pi_4"] == pytest.approx(2000, abs=130)
    assert counts["phone"] == pytest.approx(1000, abs=110)
    slow = sum(device.slowdown == 3.0 for device in devices)
    assert slow == pytest.approx(1000, abs=110)
    assert {device.slowdown for device in devices} == {1.0, 3.0}


def test_the_order_of_the_profiles_is_no_setting() -> None:
    turned = replace(ZOO, profiles=dict(reversed(ZOO.profiles.items())))
    one, other = (make_fleet(c, num_devices=50, seed=0) for c in (ZOO, turned))
    assert [one.device(i) for i in range(50)] == [other.device(i) for i in range(50)]


def test_a_million_devices_cost_nothing_until_one_is_asked() -> None:
    config = replace(ZOO, num_devices=10**6)
    tracemalloc.start()
    try:
        fleet = make_fleet(config, num_devices=10**6, seed=0)
        for device in range(0, 10**6, 10**4):
            journey(fleet, device, start=1e6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_without_profiles_all_devices_are_ideal() -> None:
    fleet = make_fleet(FleetConfig(), num_devices=5, seed=0)
    assert fleet.device(4).profile is IDEAL
    assert journey(fleet).outcome is Outcome.ok
    assert journey(fleet).arrival.arrival_seconds == 0.0


@pytest.mark.parametrize("index", [-1, 400])
def test_there_is_no_device_beyond_the_last(index: int) -> None:
    with pytest.raises(IndexError, match=r"not in \[0, 400\)"):
        SURE.device(index)


@pytest.mark.parametrize(
    ("where", "phases"),
    [
        (DropPhase.download, {Phase.download}),
        (DropPhase.compute, {Phase.compute}),
        (DropPhase.upload, {Phase.upload}),
        (DropPhase.any, set(Phase)),
    ],
)
def test_a_device_drops_out_in_the_phase_that_was_chosen(
    where: DropPhase, phases: set[Phase]
) -> None:
    fleet = replace(SURE, drop_phase=where)
    journeys = [journey(fleet, device) for device in range(400)]
    assert {j.outcome for j in journeys} == {Outcome.dropped}
    assert {j.arrival.stopped_in for j in journeys} == phases


def test_a_device_that_drops_out_while_computing_has_paid_for_the_download() -> None:
    arrival = journey(replace(SURE, drop_phase=DropPhase.compute)).arrival
    assert (arrival.bytes_down, arrival.bytes_up) == (16, 0)
    assert arrival.energy_joules == 5.0 + 5.0 * arrival.compute_seconds


def test_about_as_many_drop_out_as_asked_for_and_others_in_another_round() -> None:
    fleet = replace(SURE, drop_probability=0.3)

    def dropped(fate: str) -> list[int]:
        outcomes = (journey(fleet, i, fate=fate).outcome for i in range(400))
        return [i for i, o in enumerate(outcomes) if o is Outcome.dropped]

    # 400 draws of 0.3: 120, with a standard deviation of 9.
    assert len(dropped("0.0")) == pytest.approx(120, abs=40)
    assert dropped("0.0") == dropped("0.0") != dropped("0.1")


def test_only_training_drops_out_by_chance() -> None:
    done = SURE.journey(0, phase="evaluate", fate="1", work=WORK, start_seconds=0.0)
    assert done.outcome is Outcome.ok


@pytest.mark.parametrize(
    ("start", "outcome"),
    [
        (0.0, Outcome.ok),
        (6 * 3600.0 - 14.0, Outcome.ok),  # to the second
        (6 * 3600.0 - 13.0, Outcome.dropped),
        (6 * 3600.0, Outcome.offline),
    ],
)
def test_a_device_that_goes_offline_before_it_finished_drops_out(
    start: float, outcome: Outcome
) -> None:
    night = Diurnal(seed=0, from_hour=0.0, until_hour=6.0, offset_hours=0.0)
    fleet = Fleet(num_devices=1, seed=0, kinds=((SIMPLE, 1.0),), availability=night)
    went = journey(fleet, start=start)
    assert went.outcome is outcome
    assert went.arrival.arrival_seconds <= max(start, 6 * 3600.0)


def test_an_offline_device_spends_nothing() -> None:
    night = Diurnal(seed=0, from_hour=0.0, until_hour=6.0, offset_hours=0.0)
    fleet = Fleet(num_devices=1, seed=0, kinds=((SIMPLE, 1.0),), availability=night)
    arrival = journey(fleet, start=12 * 3600.0).arrival
    assert arrival.energy_joules == arrival.bytes_down == arrival.bytes_up == 0


def test_a_model_that_does_not_fit_into_memory_is_not_trained() -> None:
    small = replace(SIMPLE, memory_bytes=63)  # four times 16 bytes are 64
    fleet = Fleet(num_devices=1, seed=0, kinds=((small, 1.0),))
    assert journey(fleet).outcome is Outcome.memory


def test_a_trace_needs_a_path() -> None:
    config = FleetConfig(availability=AvailabilityKind.trace)
    with pytest.raises(ConfigError, match=r"fleet\.path: empty.*set fleet\.path=FILE"):
        make_fleet(config, num_devices=1, seed=0)


@pytest.mark.parametrize("kind", ["always", "diurnal", "markov"])
def test_every_kind_of_availability_makes_a_fleet(kind: str) -> None:
    fleet = make_fleet(
        FleetConfig(availability=AvailabilityKind(kind)), num_devices=3, seed=0
    )
    assert np.isfinite(fleet.online_from(2, 1e6))
