import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.fleet import Always, Availability, Diurnal, Markov, Windows

HOUR = 3600.0
NIGHT = Diurnal(seed=0, from_hour=22.0, until_hour=6.0, offset_hours=0.0)
MARKOV = Markov(seed=3, mean_online_seconds=600.0, mean_offline_seconds=300.0)
ALL = [
    Always(),
    Diurnal(seed=1, from_hour=8.0, until_hour=20.0, offset_hours=24.0),
    NIGHT,
    MARKOV,
    Markov(seed=1, mean_online_seconds=1.0, mean_offline_seconds=1e7),
    Windows(period_seconds=10.0, windows_by_device={0: [(0.0, 2.0), (5.0, 10.0)]}),
    Windows(period_seconds=10.0, windows_by_device={0: [(3.0, 4.0)], 1: [(0.0, 10.0)]}),
]


@given(st.sampled_from(ALL), st.integers(0, 10**6), st.floats(0, 1e8))
def test_both_questions_are_answered_alike(
    rule: Availability, device: int, seconds: float
) -> None:
    begin = rule.online_from(device, seconds)
    assert begin >= seconds
    is_online = rule.online_until(device, seconds) > seconds
    assert (begin == seconds) is is_online
    if not is_online:
        assert rule.online_until(device, begin + 1e-3) > begin


@given(st.sampled_from(ALL), st.integers(0, 100), st.floats(0, 1e6), st.floats(0, 1))
def test_a_device_stays_online_until_it_is_said_to_go(
    rule: Availability, device: int, seconds: float, share: float
) -> None:
    end = min(rule.online_until(device, seconds), 1e9)
    between = seconds + share * (end - seconds)
    if seconds < between < end:
        assert rule.online_until(device, between) == rule.online_until(device, seconds)


def test_devices_that_charge_at_night() -> None:
    assert NIGHT.online_until(0, 23 * HOUR) == 30 * HOUR
    assert NIGHT.online_until(0, 0.0) == 6 * HOUR
    assert NIGHT.online_until(0, 12 * HOUR) == 12 * HOUR
    assert NIGHT.online_from(0, 12 * HOUR) == 22 * HOUR
    assert NIGHT.online_from(0, 6 * HOUR) == 22 * HOUR


def test_a_later_time_zone_has_a_later_night() -> None:
    zones = Diurnal(seed=0, from_hour=22.0, until_hour=6.0, offset_hours=12.0)
    begins = [zones.online_from(device, 12 * HOUR) / HOUR for device in range(200)]
    assert min(begins) >= 12.0
    assert max(begins) <= 34.0
    assert len({round(begin, 3) for begin in begins if begin > 12.0}) > 50


def test_markov_devices_are_online_for_their_share_of_the_time() -> None:
    # 600 of 900 s. 4000 devices: the share's standard deviation is 0.0075.
    online = [MARKOV.online_until(device, 12345.0) > 12345.0 for device in range(4000)]
    assert np.mean(online) == pytest.approx(2 / 3, abs=0.03)


def test_markov_devices_stay_for_their_mean_times() -> None:
    # Memoryless: the rest of a stay lasts as long as a whole one. 2000 draws: the
    # mean's standard deviation is 1/45 of it.
    ends = [MARKOV.online_until(device, 5000.0) - 5000.0 for device in range(3000)]
    assert np.mean([end for end in ends if end > 0]) == pytest.approx(600.0, rel=0.1)
    waits = [MARKOV.online_from(device, 5000.0) - 5000.0 for device in range(6000)]
    assert np.mean([wait for wait in waits if wait > 0]) == pytest.approx(300, rel=0.1)


def test_a_markov_device_remembers_its_state() -> None:
    # The difference to the share of all fades with the sum of both rates.
    now = [d for d in range(3000) if MARKOV.online_until(d, 0.0) > 0.0]
    later = [d for d in now if MARKOV.online_until(d, 60.0) > 60.0]
    rate = 1 / 600 + 1 / 300
    expected = 2 / 3 + math.exp(-rate * 60.0) / 3
    assert len(later) / len(now) == pytest.approx(expected, abs=0.03)


def test_the_end_of_time_costs_no_more_than_its_beginning() -> None:
    assert MARKOV.online_from(10**12, 1e11) >= 1e11


def test_recorded_windows_repeat() -> None:
    rule = Windows(
        period_seconds=10.0, windows_by_device={0: [(0.0, 2.0), (5.0, 10.0)]}
    )
    assert rule.online_until(0, 1.0) == 2.0
    assert rule.online_from(0, 3.0) == 5.0
    assert rule.online_until(0, 6.0) == 12.0  # goes on into the next round
    assert rule.online_until(0, 23.0) == 23.0
    assert rule.online_from(7, 23.0) == 25.0  # the only recorded device, again


def test_a_device_that_was_never_there_never_comes() -> None:
    rule = Windows(period_seconds=10.0, windows_by_device={0: []})
    assert rule.online_until(0, 3.0) == 3.0
    assert rule.online_from(0, 3.0) == math.inf
