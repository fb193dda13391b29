import pytest

from fedge.config import CrashKind, Experiment, FaultsConfig
from fedge.config.experiment import from_json, to_json
from fedge.errors import ConfigError
from server.settings import compose_experiment

PROBABILITIES = [
    "drop",
    "delay",
    "duplicate",
    "truncate",
    "bit_flip",
    "replay",
    "nan",
    "client_crash",
]


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), True])
def test_a_probability_is_below_one(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"faults.{name}: "):
        FaultsConfig(**{name: value})  # type: ignore[arg-type]  # one of several types


@pytest.mark.parametrize("name", ["delay_replies", "reorder_window"])
@pytest.mark.parametrize("value", [0, 1001])
def test_what_is_held_back_is_bounded(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"faults.{name}: {value} not in"):
        FaultsConfig(**{name: value})  # type: ignore[arg-type]  # one of several types


@pytest.mark.parametrize("name", ["crash_coordinator_round", "disk_full_round"])
def test_a_round_is_not_negative(name: str) -> None:
    with pytest.raises(ConfigError, match=f"faults.{name}: -1"):
        FaultsConfig(**{name: -1})  # type: ignore[arg-type]  # one of several types


def test_nothing_goes_wrong_by_default() -> None:
    faults = compose_experiment([]).faults
    assert faults == FaultsConfig()
    assert not faults.touches_replies


# For each choice of the group: what is different from `none`.
CHOICES = {
    "drop": {"drop"},
    "delay": {"delay"},
    "duplicate": {"duplicate"},
    "reorder": {"reorder_window"},
    "truncate": {"truncate"},
    "bit_flip": {"bit_flip"},
    "replay": {"replay"},
    "nans": {"nan", "checksums"},
    "client_crash": {"client_crash"},
    "coordinator_crash": {"crash_coordinator_round"},
    "disk_full": {"disk_full_round"},
    "storm": {*PROBABILITIES, "reorder_window"},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_each_choice_changes_what_its_name_says(choice: str) -> None:
    faults, none = compose_experiment([f"faults={choice}"]).faults, FaultsConfig()
    changed = {
        name
        for name in FaultsConfig.__dataclass_fields__
        if getattr(faults, name) != getattr(none, name)
    }
    assert changed == CHOICES[choice]


def test_faults_are_part_of_the_settings_that_a_run_stores() -> None:
    faults = FaultsConfig(drop=0.25, client_crash_kind=CrashKind.kill)
    experiment = Experiment(faults=faults)
    assert from_json(Experiment, to_json(experiment)).faults == faults
