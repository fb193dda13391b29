from dataclasses import replace
from pathlib import Path

import pytest

from fedge.config.fleet import AvailabilityKind, FleetConfig
from fedge.errors import DataError
from fedge.fleet import Event, Fleet, Outcome, Work, make_fleet, write_trace
from fedge.fleet.replay import recorded_fleet
from tests.fedge.fleet.kit import row


def fleet_of(tmp_path: Path, *events: Event, num_devices: int = 10) -> Fleet:
    write_trace(tmp_path / "t.csv", events)
    config = FleetConfig(
        availability=AvailabilityKind.trace, path=str(tmp_path / "t.csv")
    )
    return make_fleet(config, num_devices=num_devices, seed=0)


def seconds(fleet: Fleet, device: int, *, phase: str = "train", size: int) -> float:
    work = Work(bytes_down=size, bytes_up=size, flops=1e12)
    went = fleet.journey(device, phase=phase, fate="", work=work, start_seconds=0.0)
    assert went.outcome is Outcome.ok
    return went.arrival.arrival_seconds


def test_a_recorded_device_takes_its_recorded_time(tmp_path: Path) -> None:
    # 1 s of which 0.5 computing: 0.5 s for 200 bytes.
    fleet = fleet_of(tmp_path, row())
    assert seconds(fleet, 0, size=100) == pytest.approx(1.0)
    assert seconds(fleet, 0, size=300) == pytest.approx(0.5 + 1.5)
    assert seconds(fleet, 0, size=100, phase="evaluate") == pytest.approx(0.5)


def test_both_ways_are_told_apart_where_the_trace_does(tmp_path: Path) -> None:
    event = replace(row(), download_seconds=0.1, upload_seconds=0.4)
    profile = fleet_of(tmp_path, event).device(0).profile
    assert profile.down_bits_per_second == pytest.approx(8000.0)
    assert profile.up_bits_per_second == pytest.approx(2000.0)


def test_small_messages_say_nothing_of_a_speed(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, row(), row(bytes_down=1, bytes_up=1, received=9.0))
    assert fleet.device(0).profile.down_bits_per_second == pytest.approx(3200.0)


def test_computing_is_a_mean_per_phase(tmp_path: Path) -> None:
    fleet = fleet_of(
        tmp_path,
        row(compute=0.2),
        row(compute=0.4, sent=1.0, received=2.0),
        row(compute=0.9, sent=2.0, received=3.0, phase="evaluate"),
    )
    assert fleet.recorded[0].seconds_by_phase == pytest.approx(
        {"train": 0.3, "evaluate": 0.9}
    )


def test_power_is_energy_over_time(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, row(energy=2.0), row(energy=4.0, sent=1.0, received=2.0))
    assert fleet.device(0).profile.compute_watts == 3.0


def test_recorded_devices_are_used_in_turn(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path, row(device=70, compute=0.1), row(device=9, compute=0.2))
    times = [fleet.recorded[i].seconds_by_phase["train"] for i in (0, 1)]
    assert times == [0.2, 0.1]
    assert fleet.device(0) == fleet.device(2) != fleet.device(3)


def test_a_device_is_offline_where_it_was_found_offline(tmp_path: Path) -> None:
    fleet = fleet_of(
        tmp_path,
        row(sent=0.0, received=10.0),
        row(sent=20.0, received=20.0, outcome=Outcome.offline),
        row(sent=30.0, received=40.0),
        row(sent=40.0, received=50.0, outcome=Outcome.dropped),
        row(device=1, sent=50.0, received=100.0),
    )
    until = fleet.availability.online_until
    assert until(0, 5.0) == 20.0
    assert until(0, 25.0) == 25.0
    assert fleet.online_from(0, 25.0) == 30.0
    assert until(0, 30.0) == 50.0
    assert fleet.online_from(0, 60.0) == 100.0  # the record begins anew
    assert until(1, 60.0) > 1e300


def test_a_device_that_never_answered_is_never_there(tmp_path: Path) -> None:
    fleet = fleet_of(
        tmp_path, row(outcome=Outcome.offline, received=0.0), row(device=1)
    )
    assert fleet.online_from(0, 0.0) > 1e300
    assert fleet.online_from(1, 0.0) == 0.0


def test_a_trace_without_any_time_is_refused() -> None:
    with pytest.raises(DataError, match="nothing in it took any time"):
        recorded_fleet([row(received=0.0)])
