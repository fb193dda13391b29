"""The secure-aggregation benchmark runs, and both protocols give the right sum."""

import json

import pytest

from simulations.benchmarks.fedge_secagg import run_fedge
from simulations.benchmarks.flower_secagg import Case, Stopwatch, run_flower
from simulations.benchmarks.secagg import (
    compare,
    main,
    measure_large,
    num_masks_to_remove,
    table,
)

TINY = Case(num_clients=9, num_params=501, degree=8, threshold=5, dropout=0.2)
RATIOS = (
    "unmask_vs_flower",
    "server_vs_flower",
    "client_vs_flower",
    "upload_vs_flower",
    "expand_vs_raw_aes",
)


def test_quick_json_prints_one_object_with_the_five_ratios_in_its_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--quick", "--json", "--clients", "7", "--params", "300"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(figures[name] > 0.0 for name in RATIOS)
    assert figures["exact"] is True
    assert (figures["num_clients"], figures["num_params"]) == (7, 300)
    assert "server_cpu_seconds_n1000" not in figures


def test_without_json_the_table_says_which_bars_are_met() -> None:
    text = table({"unmask_vs_flower": 31.0, "client_vs_flower": 1.0, "exact": True})
    lines = [line.split() for line in text.splitlines()]
    assert ["unmask_vs_flower", "31", ">=", "30", "met"] in lines
    assert ["client_vs_flower", "1", ">=", "8", "MISSED"] in lines
    assert ["exact", "True"] in lines


@pytest.mark.parametrize("profile", ["r16", "r20", "r24", "r32"])
def test_the_opened_sum_is_the_survivors_sum_in_every_ring(profile: str) -> None:
    case = Case(20, 77, 16, 9, 0.2, profile=profile)
    assert run_fedge(case).is_right


def test_flower_finishes_its_round_when_clients_drop_after_sharing_keys() -> None:
    assert len(TINY.dropped) == 2
    cost = run_flower(TINY)
    assert cost.is_right
    assert cost.upload_bytes > 8 * TINY.num_params


def test_figures_are_ratios_of_the_absolute_ones() -> None:
    figures = compare(TINY, repeats=1)
    theirs, ours = figures["flower_unmask_seconds"], figures["unmask_seconds"]
    assert isinstance(theirs, float)
    assert isinstance(ours, float)
    assert figures["unmask_vs_flower"] == pytest.approx(theirs / ours)


def test_a_large_cohort_is_named_in_its_figures() -> None:
    figures = measure_large(Case(30, 64, 16, 9, 0.1))
    assert figures["exact_n30"] is True
    assert "server_cpu_seconds_n30" in figures


def test_masks_to_remove_are_the_survivors_own_and_those_shared_with_the_dropped() -> (
    None
):
    # Everybody is a neighbour: 7 survivors, each sharing a mask with 2 dropped ones.
    assert num_masks_to_remove(TINY) == 7 + 2 * 7


def test_the_stopwatch_adds_what_has_one_label() -> None:
    watch = Stopwatch()
    with watch.on("a"):
        sum(range(1000))
    once = watch["a"]
    with watch.on("a"):
        sum(range(1000))
    assert watch["a"] > once > 0.0
    assert watch["b"] == 0.0
