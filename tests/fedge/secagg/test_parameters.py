import json
from fractions import Fraction
from math import comb, floor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedge.errors import ConfigError
from fedge.secagg.parameters import (
    MAX_COMPLETE,
    ServerModel,
    complete_parameters,
    default_parameters,
    find_parameters,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "graph_parameters.json"
Row = tuple[int, float, float, str, int, int]
ROWS: list[Row] = [tuple(row) for row in json.loads(VECTORS.read_text())["rows"]]
# The table takes t = 2 although one survivor among four neighbours is likely there.
UNRELIABLE: list[Row] = [
    (10, 0.05, 0.33, "SEMI_HONEST", 4, 2),
    (10, 0.0, 0.33, "SEMI_HONEST", 4, 2),
]
HONEST, MALICIOUS = ServerModel.SEMI_HONEST, ServerModel.SEMI_MALICIOUS


def found(row: Row) -> Row:
    n, adversarial, dropout, model, _, _ = row
    k, t = find_parameters(
        n, adversarial=adversarial, dropout=dropout, model=ServerModel[model]
    )
    return n, adversarial, dropout, model, k, t


def test_the_public_table_is_met() -> None:
    assert len(ROWS) == 88
    expected = [row for row in ROWS if row not in UNRELIABLE]
    assert len(expected) == 86
    assert [found(row) for row in expected] == expected


@pytest.mark.parametrize("row", UNRELIABLE)
def test_the_two_unreliable_rows_get_more_neighbours(row: Row) -> None:
    assert row in ROWS
    assert lower_tail(1, n=10, marked=7, k=4) == Fraction(1, 30)
    assert found(row)[4:] == (6, 2)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (100, [(12, 6), (22, 11), (34, 11), (16, 11), (32, 22)]),
        (300, [(24, 14), (36, 21), (66, 26), (38, 27), (66, 46)]),
        (1000, [(30, 17), (48, 27), (88, 36), (52, 37), (96, 67)]),
        (5000, [(32, 19), (52, 30), (106, 43), (58, 41), (116, 81)]),
    ],
)
def test_usual_cohorts_have_known_parameters(
    n: int, expected: list[tuple[int, int]]
) -> None:
    columns = [
        (0.05, 0.05, HONEST),
        (0.1, 0.1, HONEST),
        (0.1, 0.3, HONEST),
        (0.05, 0.05, MALICIOUS),
        (0.1, 0.1, MALICIOUS),
    ]
    assert expected == [
        find_parameters(n, adversarial=a, dropout=d, model=m) for a, d, m in columns
    ]


def test_more_privacy_bits_take_more_neighbours() -> None:
    parameters = find_parameters(
        1000, adversarial=0.1, dropout=0.1, model=HONEST, privacy_bits=80
    )
    assert parameters == (64, 41)
    assert default_parameters(1000, privacy_bits=80) > default_parameters(1000)


def lower_tail(x: int, *, n: int, marked: int, k: int) -> Fraction:
    """P[X <= x] for X marked among k drawn of n, without any rounding."""
    ways = sum(comb(marked, i) * comb(n - marked, k - i) for i in range(min(x, k) + 1))
    return Fraction(ways, comb(n, k))


def smallest_exact(
    n: int, corrupt: int, missing: int, model: ServerModel
) -> tuple[int, int] | None:
    """The finder once more: exact fractions, every k, every t."""
    privacy, failure = Fraction(1, 2**41), Fraction(1, 2**20)
    for k in range(2, n - 1, 2):
        pairs = Fraction(n * (n - k - 1), 2)
        separated = pairs * comb(corrupt + missing, k) / comb(n, k)
        for t in range(2, k + 1):
            limit = t if model is HONEST else 2 * t - k
            opened = 1 - lower_tail(limit - 1, n=n, marked=corrupt, k=k)
            lost = lower_tail(t - 1, n=n, marked=n - missing, k=k)
            safe = limit > 0 and opened < privacy / n and lost < failure / n
            if safe and separated < privacy:
                return k, t
    return None


def found_or_none(
    n: int, *, adversarial: float, dropout: float, model: ServerModel
) -> tuple[int, int] | None:
    try:
        return find_parameters(n, adversarial=adversarial, dropout=dropout, model=model)
    except ConfigError:
        return None


@settings(deadline=None, max_examples=200)
@given(
    n=st.integers(4, 48),
    adversarial=st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.33]),
    dropout=st.sampled_from([0.0, 0.05, 0.1, 0.28]),
    model=st.sampled_from(ServerModel),
)
@example(n=100, adversarial=0.07, dropout=0.29, model=HONEST)  # 0.29 * 100 < 29
def test_the_finder_agrees_with_exact_fractions(
    n: int, adversarial: float, dropout: float, model: ServerModel
) -> None:
    corrupt, missing = (
        floor(Fraction(str(rate)) * n) for rate in (adversarial, dropout)
    )
    exact = smallest_exact(n, corrupt, missing, model)
    fast = found_or_none(n, adversarial=adversarial, dropout=dropout, model=model)
    assert fast == exact


@settings(deadline=None, max_examples=50)
@given(n=st.integers(3, 65_536))
def test_a_complete_graph_withstands_a_third(n: int) -> None:
    k, t = complete_parameters(n)
    corrupt = k // 3
    assert k == n - 1
    assert 2 <= t <= k
    assert 2 * t > k + corrupt
    assert 3 * (t - 1) <= 2 * k


@pytest.mark.parametrize(
    ("n", "expected"), [(3, (2, 2)), (4, (3, 3)), (5, (4, 3)), (100, (99, 67))]
)
def test_small_complete_graphs_are_known(n: int, expected: tuple[int, int]) -> None:
    assert complete_parameters(n) == expected


def test_the_default_is_complete_up_to_128_members() -> None:
    assert default_parameters(MAX_COMPLETE) == complete_parameters(128)
    assert default_parameters(MAX_COMPLETE + 1) == (38, 26)
    assert default_parameters(1000) == (96, 67)


def test_there_is_a_default_for_every_size() -> None:
    sizes = [*range(129, 400, 7), 10_000, 65_536]
    degrees = [default_parameters(n) for n in sizes]
    assert all(
        k % 2 == 0 and 2 <= t <= k < n - 1
        for n, (k, t) in zip(sizes, degrees, strict=True)
    )
    assert all(2 * t > k for k, t in degrees)


@pytest.mark.parametrize("n", [-1, 0, 2])
def test_two_members_are_too_few(n: int) -> None:
    with pytest.raises(ConfigError, match=f"{n} members, need at least 3"):
        complete_parameters(n)
    with pytest.raises(ConfigError, match=f"{n} members, need at least 3"):
        default_parameters(n)


@pytest.mark.parametrize(
    ("n", "adversarial", "dropout", "model", "message"),
    [
        (0, 0.1, 0.1, HONEST, "0 members"),
        (1000, 0.1, 1.0, HONEST, r"dropout: 1.0 not in \[0, 1\)"),
        (1000, 0.1, -1.0, HONEST, r"dropout: -1.0 not in \[0, 1\)"),
        (1000, float("nan"), 0.1, HONEST, "adversarial: nan not in"),
        (1000, 0.5, 0.5, HONEST, r"adversarial \+ 1 \* dropout: 1 not in \[0, 0.9\]"),
        (1000, 0.5, 0.5, MALICIOUS, r"2 \* dropout: 1.5 not in"),
        (1000, 0.33, 0.33, MALICIOUS, r"2 \* dropout: 0.99 not in"),
        (10, 0.4, 0.4, HONEST, "no even number of neighbours below 9"),
    ],
)
def test_what_cannot_be_met_is_refused(
    n: int, adversarial: float, dropout: float, model: ServerModel, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        find_parameters(n, adversarial=adversarial, dropout=dropout, model=model)
