import pytest

from fedge.compress.target import slowdown_of, with_budgets
from fedge.config.compression import CompressionConfig
from fedge.config.fleet import DeviceKind
from fedge.errors import ConfigError


def test_without_a_device_nothing_changes() -> None:
    config = CompressionConfig()
    assert with_budgets(config) is config
    assert slowdown_of(None) == 1.0


def test_a_device_brings_budgets_where_none_are_set() -> None:
    config = with_budgets(CompressionConfig(device=DeviceKind.raspberry_pi_4))
    assert (config.max_memory_mb, config.max_latency_ms) == (1024.0, 100.0)
    config = with_budgets(
        CompressionConfig(
            device=DeviceKind.raspberry_pi_4, max_memory_mb=64.0, max_latency_ms=5.0
        )
    )
    assert (config.max_memory_mb, config.max_latency_ms) == (64.0, 5.0)


def test_a_slower_device_takes_longer() -> None:
    zero, four, five = (
        slowdown_of(kind)
        for kind in (
            DeviceKind.raspberry_pi_zero_2,
            DeviceKind.raspberry_pi_4,
            DeviceKind.raspberry_pi_5,
        )
    )
    assert zero > four > five > 0.0
    assert four / five == pytest.approx(30.249 / 11.889)


def test_a_device_whose_core_nobody_measured_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"jetson_nano is not known.*raspberry_pi_4"):
        with_budgets(CompressionConfig(device=DeviceKind.jetson_nano))
