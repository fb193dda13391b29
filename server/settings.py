"""From `conf/` and a list of overrides to an `Experiment`, with errors that help.

Hydra composes; what it says of a mistake is replaced by the setting, what it allows,
and the nearest name there is.
"""

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedge.config import Experiment
from fedge.errors import ConfigError
from server.compatibility import check_compatible, check_strategy_fits
from server.strategy import make_strategy

CONF = Path(__file__).resolve().parent.parent / "conf"
ROOT_CONFIG = "config"
_OPEN_GROUP = "strategy"  # its entries are its class's arguments, whatever they are
_OPEN_SETTING = "fleet.profiles"  # its entries are kinds of devices


def register_schema() -> None:
    """Tell Hydra the types of all settings (the name that `conf/config.yaml` uses)."""
    ConfigStore.instance().store(name="experiment_schema", node=Experiment)


def compose_experiment(overrides: Sequence[str]) -> Experiment:
    """Return the experiment of `conf/config.yaml` with these overrides.

    Raises:
        ConfigError: a name, a value or a combination is wrong.
    """
    register_schema()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            _check_names(overrides)
            composed = compose(ROOT_CONFIG, overrides=open_strategy(overrides))
    except (HydraException, OmegaConfBaseException) as exc:
        raise ConfigError(_first_line(exc)) from exc
    experiment = experiment_of(composed)
    check_experiment(experiment)
    return experiment


def experiment_of(composed: DictConfig) -> Experiment:
    """Return the composed settings as dataclasses; each checks its own values.

    Raises:
        ConfigError: a value is out of range.
    """
    try:
        plain = OmegaConf.to_object(composed)
    except OmegaConfBaseException as exc:
        raise ConfigError(_first_line(exc)) from exc
    return cast(Experiment, plain)


def check_experiment(experiment: Experiment) -> None:
    """Raise ConfigError unless the settings fit together and the strategy exists."""
    check_compatible(experiment)
    strategy = make_strategy(experiment.strategy, allow=experiment.run.allow)
    check_strategy_fits(experiment, strategy.needs)


def open_strategy(overrides: Iterable[str]) -> list[str]:
    """Let `strategy.x=1` add an argument, as `++strategy.x=1` does."""
    added = (f"{_OPEN_GROUP}.", f"{_OPEN_SETTING}.")
    return [f"++{text}" if text.startswith(added) else text for text in overrides]


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Return the combinations of a sweep that can be known before it starts.

    `a=1,2 b=3` gives `[a=1 b=3]` and `[a=2 b=3]`; a range keeps its first element
    only, which is enough to find a wrong name.

    Raises:
        ConfigError: an override cannot be read, or cannot be swept.
    """
    combinations: list[list[str]] = [[]]
    for override in _parse(overrides):
        choices = _choices(override)
        combinations = [[*old, new] for old in combinations for new in choices]
    return combinations


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key, value = override.get_key_element(), override.value()
    if isinstance(value, Glob):
        group = override.key_or_group
        matches = value.filter(_choices_of(group)) if group in _groups() else []
    elif override.is_interval_sweep():
        matches = []
    elif override.is_range_sweep():
        matches = list(islice(override.sweep_string_iterator(), 1))
    else:
        matches = list(override.sweep_string_iterator())
    if not matches:
        raise ConfigError(
            f"{key}: nothing to sweep in {override.input_line!r}; use a list (a,b), a "
            f"range(0,3), or a glob(*) over the choices of a group"
        )
    return [f"{key}={match}" for match in matches]


def _check_names(overrides: Sequence[str]) -> None:
    """Raise ConfigError for a setting or choice that does not exist."""
    groups, known = _groups(), _known_names()
    for override in _parse(overrides):
        key = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(
                f"{key}: {override.input_line!r} names several values; add -m to run "
                f"each of them"
            )
        free = ("hydra.", "hydra/", f"{_OPEN_GROUP}.", f"{_OPEN_SETTING}.")
        if key.startswith(free) or key == "hydra":
            continue
        if override.is_delete():
            raise ConfigError(f"{key}: a setting cannot be removed, only changed")
        if key in groups:
            _check_choice(key, override)
        elif key not in known:
            raise ConfigError(_unknown(key, [*sorted(groups), *known]))


def _check_choice(group: str, override: Override) -> None:
    value = override.value()
    choices = _choices_of(group)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {group}={near[0]}?" if near else ""
        raise ConfigError(f"{group}: {value!r} is none of {', '.join(choices)}{hint}")


def _groups() -> set[str]:
    return {f.name for f in CONF.iterdir() if f.is_dir()} - {"hydra"}


def _choices_of(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _known_names() -> list[str]:
    plain = OmegaConf.to_container(OmegaConf.structured(Experiment))
    return _names_in(cast(dict[str, Any], plain), "")


def _names_in(plain: dict[str, Any], prefix: str) -> list[str]:
    names = []
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            names += _names_in(value, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def _unknown(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else "."
    group = key.partition(".")[0]
    siblings = [name for name in known if name.startswith(f"{group}.")]
    allowed = siblings or [name for name in known if "." not in name]
    return f"{key}: no such setting{hint} There are: {', '.join(allowed)}"


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            parsed += parser.parse_overrides([text])
        except HydraException as exc:
            raise ConfigError(
                f"{text!r}: not of the form NAME=VALUE, or the value needs quotes"
            ) from exc
    return parsed


def _first_line(exc: Exception) -> str:
    """Return the useful part of Hydra's message, with the setting it is about."""
    cause = exc.__cause__ if isinstance(exc.__cause__, OmegaConfBaseException) else exc
    key = getattr(cause, "full_key", None)
    text = str(getattr(cause, "msg", None) or cause).split("\n")[0]
    return f"{key}: {text}" if key and not text.startswith(key) else text
