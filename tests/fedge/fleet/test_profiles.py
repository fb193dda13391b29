import pytest

from fedge.config.fleet import DeviceKind
from fedge.fleet import PROFILES, DeviceProfile
from fedge.fleet.timeline import idle_celsius, throttled_speed


def test_every_kind_of_device_has_a_profile_of_its_name() -> None:
    assert set(PROFILES) == set(DeviceKind)
    assert all(PROFILES[kind].name == kind.value for kind in DeviceKind)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_a_profile_is_physically_possible(profile: DeviceProfile) -> None:
    assert 0 < profile.idle_watts < profile.radio_watts <= profile.compute_watts
    assert profile.thermal.ambient_celsius < profile.thermal.throttle_celsius
    assert idle_celsius(profile) < profile.thermal.throttle_celsius
    assert 0.0 < profile.thermal.throttled_factor <= throttled_speed(profile) <= 1.0


def test_a_newer_raspberry_pi_is_faster() -> None:
    speeds = [
        PROFILES[kind].flops_per_second
        for kind in (
            DeviceKind.raspberry_pi_zero_2,
            DeviceKind.raspberry_pi_4,
            DeviceKind.raspberry_pi_5,
        )
    ]
    assert speeds == sorted(speeds)


def test_a_raspberry_pi_5_without_a_cooler_throttles_and_an_agx_orin_does_not() -> None:
    assert throttled_speed(PROFILES[DeviceKind.raspberry_pi_5]) < 1.0
    assert throttled_speed(PROFILES[DeviceKind.jetson_agx_orin]) == 1.0
