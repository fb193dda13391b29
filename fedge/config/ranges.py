"""Range checks whose messages name the setting, its value and the allowed range."""

import math

from fedge.errors import ConfigError


def check_at_least(name: str, value: float, low: float) -> None:
    """Raise ConfigError unless value >= low and value is finite."""
    if not (value >= low and math.isfinite(value)):
        raise ConfigError(f"{name}: {value} must be at least {low}")


def check_more_than(name: str, value: float, low: float) -> None:
    """Raise ConfigError unless value > low and value is finite."""
    if not (value > low and math.isfinite(value)):
        raise ConfigError(f"{name}: {value} must be more than {low}")


def check_within(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low <= value <= high."""
    if not low <= value <= high:
        raise ConfigError(f"{name}: {value} not in [{low}, {high}]")


def check_below_one(name: str, value: float) -> None:
    """Raise ConfigError unless 0 <= value < 1."""
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"{name}: {value} not in [0, 1)")
