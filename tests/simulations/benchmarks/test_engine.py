"""The engine benchmark's parts, on the small model and few rounds."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fedge.config import Batching
from simulations.benchmarks.bare_loop import bare_loop
from simulations.benchmarks.engine import in_turn, overhead
from simulations.benchmarks.fedge_rounds import fedge_rounds, make_setup
from simulations.benchmarks.plain_app import run_plain
from simulations.benchmarks.scaling import measure_scale


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_our_app_and_the_bare_loop_take_turns_and_are_compared() -> None:
    figures = in_turn("small", num_rounds=1)
    ratio = figures["small_bare2_ms"] / figures["small_fedge_ms"]
    assert figures["small_vs_bare"] == pytest.approx(ratio)
    assert figures["small_bare1_ms"] > 0


def test_what_a_message_costs_is_told() -> None:
    assert set(overhead(num_rounds=1)) == {"overhead_ms_per_client"}


@pytest.mark.parametrize("batching", [Batching.always, Batching.never])
def test_our_rounds_learn_like_the_bare_loop(batching: Batching) -> None:
    """Not the same model: our clients take their examples in a random order."""
    with (
        bare_loop("small", num_processes=1) as bare,
        fedge_rounds(make_setup("small"), num_workers=2, batching=batching) as ours,
    ):
        start = ours.params
        for round_index in range(3):
            bare(round_index)
            ours(round_index)
        theirs = bare.params.numpy() - start
        cosine = theirs @ (ours.params - start)
        cosine /= np.linalg.norm(theirs) * np.linalg.norm(ours.params - start)
    assert ours.batched is (batching is Batching.always)
    assert cosine > 0.9


@pytest.mark.integration
def test_an_unmodified_app_runs_and_is_timed() -> None:
    run = run_plain("small", num_rounds=2)
    assert len(run.seconds) == 2
    assert run.peak_bytes > 10**7


@pytest.mark.integration
def test_a_scale_is_measured_in_a_process_of_its_own() -> None:
    scale = measure_scale(10**6, 10, "small", 1)
    assert (scale.num_clients, scale.cohort, scale.num_params) == (10**6, 10, 7850)
    assert scale.peak_mb > 10
