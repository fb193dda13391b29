import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.fleet import IDEAL, PROFILES, DeviceProfile, Phase, Work, arrive
from fedge.fleet.timeline import idle_celsius, throttled_speed
from tests.fedge.fleet.kit import HOT, SIMPLE, WORK

HOT_DEVICE = replace(SIMPLE, thermal=HOT)


def test_a_device_downloads_computes_and_uploads() -> None:
    # 0.5 s latency and 16 bytes at 8 a second; 10 operations; 0.5 s and 8 bytes.
    arrival = arrive(SIMPLE, WORK, start_seconds=100.0)
    assert arrival.download_seconds == 2.5
    assert arrival.compute_seconds == 10.0
    assert arrival.upload_seconds == 1.5
    assert arrival.arrival_seconds == 114.0
    assert arrival.energy_joules == 2.5 * 2.0 + 10.0 * 5.0 + 1.5 * 2.0
    assert (arrival.bytes_down, arrival.bytes_up) == (16, 8)
    assert arrival.stopped_in is None


def test_a_straggler_is_slower_in_everything() -> None:
    arrival = arrive(SIMPLE, WORK, slowdown=3.0)
    assert arrival.arrival_seconds == 3 * 14.0
    assert arrival.energy_joules == 3 * 58.0


def test_an_ideal_device_takes_no_time_and_no_energy() -> None:
    arrival = arrive(IDEAL, Work(bytes_down=1e9, bytes_up=1e9, flops=1e15))
    assert arrival.arrival_seconds == 0.0
    assert arrival.energy_joules == 0.0
    assert arrival.stopped_in is None


@pytest.mark.parametrize(
    ("after", "phase", "energy", "num_bytes"),
    [
        (0.0, Phase.download, 0.0, (0, 0)),
        (1.25, Phase.download, 2.5, (8, 0)),  # half of the download
        (4.5, Phase.compute, 5.0 + 10.0, (16, 0)),
        (13.25, Phase.upload, 5.0 + 50.0 + 1.5, (16, 4)),
        (14.0, None, 58.0, (16, 8)),
    ],
)
def test_a_device_that_stops_has_spent_what_it_did_until_then(
    after: float, phase: Phase | None, energy: float, num_bytes: tuple[int, int]
) -> None:
    arrival = arrive(SIMPLE, WORK, stop_after_seconds=after)
    assert arrival.stopped_in is phase
    assert arrival.arrival_seconds == after
    assert arrival.energy_joules == energy
    assert (arrival.bytes_down, arrival.bytes_up) == num_bytes


def test_a_hot_device_slows_down_to_what_the_air_takes_away() -> None:
    # Idle at 30 degrees. Computing ends at 70 and reaches 50 after 10 ln(40 / 20) s;
    # then 3 of 5 W may stay: half of the power above idle, so half of the speed.
    no_download = replace(HOT_DEVICE, latency_seconds=0.0)
    arrival = arrive(no_download, Work(bytes_down=0, bytes_up=0, flops=10.0))
    cool = 10.0 * math.log(2.0)
    assert idle_celsius(no_download) == 30.0
    assert throttled_speed(no_download) == 0.5
    assert arrival.compute_seconds == pytest.approx(cool + (10.0 - cool) / 0.5)
    expected = cool * 5.0 + (10.0 - cool) / 0.5 * 3.0
    assert arrival.energy_joules == pytest.approx(expected)
    assert arrival.peak_celsius == pytest.approx(50.0)


def test_short_work_is_not_throttled() -> None:
    no_download = replace(HOT_DEVICE, latency_seconds=0.0)
    arrival = arrive(no_download, Work(bytes_down=0, bytes_up=0, flops=5.0))
    assert arrival.compute_seconds == 5.0
    assert arrival.peak_celsius == pytest.approx(70.0 - 40.0 * math.exp(-0.5))


def test_a_device_is_never_slower_than_its_slowest_clock() -> None:
    stuck = replace(HOT_DEVICE, thermal=replace(HOT, throttle_celsius=31.0))
    assert throttled_speed(stuck) == 0.25
    arrival = arrive(stuck, Work(bytes_down=0, bytes_up=0, flops=1e6))
    # 1 + 0.25 x 4 = 2 W keep it at 40 degrees, above the limit: it can do no more.
    assert arrival.peak_celsius == pytest.approx(40.0)


def test_a_device_that_begins_hot_is_throttled_at_once() -> None:
    tropics = replace(HOT_DEVICE, thermal=replace(HOT, ambient_celsius=45.0))
    arrival = arrive(tropics, Work(bytes_down=0, bytes_up=0, flops=10.0))
    assert arrival.compute_seconds == 40.0


works = st.builds(
    Work,
    bytes_down=st.floats(0, 1e9),
    bytes_up=st.floats(0, 1e9),
    flops=st.floats(0, 1e14),
)


@given(
    st.sampled_from(list(PROFILES.values())),
    works,
    st.floats(1, 10),
    st.floats(0, 1e5),
    st.floats(0, 1e5),
)
def test_time_energy_and_bytes_grow_with_the_moment_of_the_stop(
    profile: DeviceProfile, work: Work, slowdown: float, one: float, other: float
) -> None:
    early, late = (
        arrive(profile, work, slowdown=slowdown, stop_after_seconds=after)
        for after in sorted([one, other])
    )
    whole = arrive(profile, work, slowdown=slowdown)
    for less, more in ((early, late), (late, whole)):
        assert less.arrival_seconds <= more.arrival_seconds
        # Sums of the same terms in another order: a few last bits.
        assert less.energy_joules <= more.energy_joules * (1 + 1e-12)
        assert less.bytes_down <= more.bytes_down
        assert less.bytes_up <= more.bytes_up
        assert less.peak_celsius <= more.peak_celsius + 1e-9


@given(st.sampled_from(list(PROFILES.values())), works)
def test_no_device_that_can_slow_down_far_enough_gets_too_hot(
    profile: DeviceProfile, work: Work
) -> None:
    heat = profile.thermal
    slowest = replace(profile, thermal=replace(heat, throttled_factor=1e-6))
    limit = max(heat.throttle_celsius, idle_celsius(profile))
    assert arrive(slowest, work).peak_celsius <= limit + 1e-6
