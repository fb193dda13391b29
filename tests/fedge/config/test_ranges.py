"""Range checks: the ends of each range, what is no number, and what messages say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedge.config.ranges import (
    check_at_least,
    check_below_one,
    check_more_than,
    check_within,
)
from fedge.errors import ConfigError

CHECKS: list[Callable[[Any], None]] = [
    lambda value: check_at_least("a.b", value, 0),
    lambda value: check_more_than("a.b", value, 0),
    lambda value: check_within("a.b", value, 0, 10),
    lambda value: check_below_one("a.b", value),
]


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (0, 0),
        (0, 1e300),
        (0, 2**63 - 1),
        (1, 5e-324),
        (2, 0),
        (2, 10),
        (3, 0.0),
        (3, 0.999),
        (3, np.float32(0.5)),
        (0, np.int64(3)),
    ],
)
def test_values_in_the_range_pass(check: int, value: float) -> None:
    CHECKS[check](value)


@pytest.mark.parametrize(
    ("check", "value", "says"),
    [
        (0, -1, "a.b: -1 must be at least 0"),
        (0, -5e-324, "a.b: -5e-324 must be at least 0"),
        (1, 0, "a.b: 0 must be more than 0"),
        (2, -1, "a.b: -1 not in [0, 10]"),
        (2, 10.5, "a.b: 10.5 not in [0, 10]"),
        (3, 1.0, "a.b: 1.0 not in [0, 1)"),
        (3, -0.5, "a.b: -0.5 not in [0, 1)"),
    ],
)
def test_a_message_has_name_value_and_range(
    check: int, value: float, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        CHECKS[check](value)
    assert str(caught.value) == says


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), np.float32("nan")]
)
def test_what_is_not_finite_is_refused(
    check: Callable[[Any], None], value: float
) -> None:
    with pytest.raises(ConfigError, match=r"a\.b: -?(nan|inf) is not a finite number"):
        check(value)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", [True, "1", None, [1], 1j])
def test_what_is_no_number_is_refused(
    check: Callable[[Any], None], value: object
) -> None:
    with pytest.raises(ConfigError, match=r"a\.b: .* is not a number"):
        check(value)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**4000])
def test_a_whole_number_that_fits_no_machine_word_is_refused(
    check: Callable[[Any], None], value: int
) -> None:
    with pytest.raises(ConfigError, match="more than 64 bits"):
        check(value)
