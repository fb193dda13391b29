"""The fleet's own limits; a message names the setting."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fedge.config.experiment import from_json, to_json
from fedge.config.fleet import AvailabilityKind, FleetConfig
from fedge.errors import ConfigError
from fedge.fleet import make_fleet
from server.settings import CONF, ROOT_CONFIG, experiment_of, register_schema

FILES = sorted((CONF / "fleet").glob("*.yaml"))


def composed(*overrides: str) -> FleetConfig:
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return experiment_of(compose(ROOT_CONFIG, overrides=list(overrides))).fleet


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_makes_a_fleet_or_names_what_is_missing(path: Path) -> None:
    config = composed(f"fleet={path.stem}")
    plain = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(plain, dict)
    assert config.num_devices == plain["num_devices"]
    assert from_json(FleetConfig, to_json(config)) == config
    makes_a_fleet = path.stem != "trace"
    if makes_a_fleet:
        assert make_fleet(config, num_devices=5, seed=0).device(4).slowdown >= 1.0
    else:
        with pytest.raises(ConfigError, match=r"set fleet\.path=FILE"):
            make_fleet(config, num_devices=5, seed=0)


@pytest.mark.parametrize("name", ["small", "hundred", "natural", "flaky"])
def test_the_fleets_without_profiles_have_no_virtual_time(name: str) -> None:
    assert not composed(f"fleet={name}").is_virtual


@pytest.mark.parametrize(
    "name", ["pi_zoo", "zoo", "phones", "restless", "trace", "million"]
)
def test_the_others_have(name: str) -> None:
    assert composed(f"fleet={name}").is_virtual


def test_a_fleet_is_put_together_on_the_command_line() -> None:
    config = composed("+fleet.profiles={phone:1,laptop:2}", "fleet.availability=markov")
    assert config.profiles == {"phone": 1.0, "laptop": 2.0}
    assert config.availability is AvailabilityKind.markov


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: FleetConfig(profiles={"toaster": 1.0}),
            "fleet.profiles: 'toaster' is none of raspberry_pi_zero_2, ",
        ),
        (lambda: FleetConfig(profiles={"phone": 0.0}), "fleet.profiles.phone: 0.0"),
        (lambda: FleetConfig(profiles={"phone": 2e6}), "fleet.profiles.phone: 2000000"),
        (
            lambda: FleetConfig(profiles={"phone": float("nan")}),
            "fleet.profiles.phone: nan",
        ),
        (
            lambda: FleetConfig(straggler_share=0.1),
            "fleet.straggler_share: 0.1 needs fleet.profiles",
        ),
        (lambda: FleetConfig(straggler_share=1.1), "fleet.straggler_share: 1.1 not in"),
        (lambda: FleetConfig(straggler_factor=0.5), "fleet.straggler_factor: 0.5"),
        (lambda: FleetConfig(flops_per_request=-1), "fleet.flops_per_request: -1"),
        (lambda: FleetConfig(online_from_hour=25), "fleet.online_from_hour: 25"),
        (lambda: FleetConfig(offset_hours=-1), "fleet.offset_hours: -1"),
        (
            lambda: FleetConfig(online_from_hour=0, online_until_hour=24),
            "fleet.online_until_hour: 24 is fleet.online_from_hour",
        ),
        (
            lambda: FleetConfig(mean_online_seconds=0.5),
            "fleet.mean_online_seconds: 0.5 not in",
        ),
        (
            lambda: FleetConfig(mean_offline_seconds=1e12),
            "fleet.mean_offline_seconds: 1000000000000.0 not in",
        ),
        (
            lambda: FleetConfig(path="t.csv"),
            "fleet.path: 't.csv' is read with fleet.availability=trace only",
        ),
        (
            lambda: FleetConfig(
                availability=AvailabilityKind.trace, profiles={"phone": 1.0}
            ),
            "fleet.profiles: a trace says how fast its devices are",
        ),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(
    make: Callable[[], object], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert says in str(caught.value)
