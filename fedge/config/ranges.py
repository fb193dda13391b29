"""Range checks whose messages name the setting, its value and the allowed range."""

import math
from numbers import Integral, Real

from fedge.errors import ConfigError


def check_at_least(name: str, value: float, low: float) -> None:
    """Raise ConfigError unless value >= low and value is finite."""
    _check_number(name, value)
    if not value >= low:
        raise ConfigError(f"{name}: {value} must be at least {low}")


def check_more_than(name: str, value: float, low: float) -> None:
    """Raise ConfigError unless value > low and value is finite."""
    _check_number(name, value)
    if not value > low:
        raise ConfigError(f"{name}: {value} must be more than {low}")


def check_within(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low <= value <= high."""
    _check_number(name, value)
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} not in [{low}, {high}]")


def check_below_one(name: str, value: float) -> None:
    """Raise ConfigError unless 0 <= value < 1."""
    _check_number(name, value)
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"{name}: {value} not in [0, 1)")


def _check_number(name: str, value: object) -> None:
    """Raise ConfigError unless this is a finite number that fits a machine word.

    Not every setting comes through a typed parser: a strategy's arguments do not.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{name}: {value!r} is not a number")
    if isinstance(value, Integral):
        if not -(2**63) <= int(value) < 2**63:
            raise ConfigError(f"{name}: a whole number of more than 64 bits")
    elif not math.isfinite(value):
        raise ConfigError(f"{name}: {value} is not a finite number")
