"""How fast the simulator is, against a bare PyTorch loop and others' runtimes.

    python -m simulations.benchmarks.engine [--json] [--quick] [--no-peers]

The work: `workload` (1000 clients x 50 images, cohort 50, one epoch, batches of 10)
with four models. Contestants: the bare loop in one and in two processes (`bare_loop`);
our app on a LocalGrid with two workers; an unmodified Flower app on the same LocalGrid
(`plain_app`); that app in Flower's own tuned Ray runtime (`flower_runtime`); and
pfl-research where `make bench-peers` has installed it.

The bare loops and our app take turns, round by round, in this process, so that a busy
machine slows all of them; the others run as child processes, one after the other.
Reported are ratios of median seconds per round: `small_vs_bare` is how many times
faster than the bare loop with two processes our app is.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch

from fedge.config import Batching
from simulations.benchmarks.bare_loop import bare_loop
from simulations.benchmarks.fedge_rounds import (
    fedge_rounds,
    make_setup,
    trainer_loop,
)
from simulations.benchmarks.flower_runtime import REPOSITORY, run_flower
from simulations.benchmarks.plain_app import run_plain
from simulations.benchmarks.scaling import measure_scale
from simulations.benchmarks.workload import COHORT_SIZE, MODEL_NAMES

Figures = dict[str, float]

PEERS_PYTHON = REPOSITORY / ".venv-peers" / "bin" / "python"
_ROUNDS = {"small": 60, "medium": 60, "cnn": 10, "big": 8}
_PEER_ROUNDS = {"small": 8, "medium": 8, "cnn": 5, "big": 4}
_PFL_TRIES = 3  # its processes sometimes fail to find each other
_PLAIN_MODELS = ("small", "big")
_OVERHEAD = ("model.builder=''", "model=mlp", "model.widths=[128,10]", "train.steps=1")


def measure(*, quick: bool, peers: bool) -> Figures:
    """Return all figures."""
    torch.set_num_threads(1)
    figures: Figures = {}
    for model in MODEL_NAMES:
        figures |= in_turn(model, num_rounds=3 if quick else _ROUNDS[model])
    for model in _PLAIN_MODELS[: 1 if quick else None]:
        figures |= plain(model, num_rounds=3 if quick else _PEER_ROUNDS[model])
    figures |= overhead(num_rounds=5 if quick else 30)
    figures |= scaling(quick=quick)
    if peers:
        for model in MODEL_NAMES:
            figures |= against_peers(model, figures)
    return figures


def in_turn(model: str, *, num_rounds: int) -> Figures:
    """Let the bare loops and our app take turns; return seconds and ratios."""
    setup = make_setup(model)
    with ExitStack() as stack:
        ways: dict[str, Callable[[int], None]] = {
            f"bare{n}": stack.enter_context(bare_loop(model, num_processes=n))
            for n in (1, 2)
        }
        ours = stack.enter_context(fedge_rounds(setup, num_workers=2))
        ways["fedge"] = ours
        seconds = _take_turns(ways, num_rounds)
    return {
        **{f"{model}_{way}_ms": 1e3 * value for way, value in seconds.items()},
        f"{model}_batched": float(ours.batched),
        f"{model}_vs_bare": seconds["bare2"] / seconds["fedge"],
    }


def _take_turns(
    ways: Mapping[str, Callable[[int], None]], num_rounds: int
) -> dict[str, float]:
    """Return each way's median seconds of a round; the first two fill caches."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_index in range(num_rounds + 2):
        for name, one_round in ways.items():
            started = time.perf_counter()
            one_round(round_index)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[2:]) for name, values in seconds.items()}


def plain(model: str, *, num_rounds: int) -> Figures:
    """Run the unmodified Flower app on our grid."""
    run = run_plain(model, num_rounds=num_rounds)
    return {
        f"{model}_plain_ms": 1e3 * run.seconds_per_round,
        f"{model}_plain_mb": run.peak_bytes / 1e6,
    }


def overhead(*, num_rounds: int) -> Figures:
    """Return what a message costs beside its training, in one process, 100k parameters.

    Both ways train the same clients for one step, one after the other.
    """
    setup = make_setup("small", _OVERHEAD)
    with fedge_rounds(setup, num_workers=0, batching=Batching.never) as ours:
        loop = trainer_loop(setup)
        ways: dict[str, Callable[[int], None]] = {"grid": ours, "loop": loop}
        seconds = _take_turns(ways, num_rounds)
    each = 1e3 * (seconds["grid"] - seconds["loop"]) / COHORT_SIZE
    return {"overhead_ms_per_client": each}


def scaling(*, quick: bool) -> Figures:
    """Return cost and peak memory by registered clients and by cohort."""
    figures: Figures = {}
    for exponent in (3, 6) if quick else (2, 3, 4, 5, 6):
        scale = measure_scale(10**exponent, 100, "small", 5)
        figures[f"rss_mb_at_1e{exponent}_clients"] = scale.peak_mb
        figures[f"ms_per_client_at_1e{exponent}_clients"] = scale.ms_per_client
    for cohort in () if quick else (100, 1_000, 10_000):
        scale = measure_scale(10**5, cohort, "million", 1)
        figures[f"rss_mb_at_cohort_{cohort}"] = scale.peak_mb
        figures[f"ms_per_client_at_cohort_{cohort}"] = scale.ms_per_client
    return figures


def against_peers(model: str, ours: Mapping[str, float]) -> Figures:
    """Run Flower's runtime, and pfl-research if it is there; return ratios."""
    rounds = _PEER_ROUNDS[model]
    flower = run_flower(model, num_rounds=rounds)
    figures = {
        f"{model}_flower_ms": 1e3 * flower.seconds_per_round,
        f"{model}_flower_mb": flower.peak_bytes / 1e6,
        f"{model}_vs_flower": 1e3
        * flower.seconds_per_round
        / ours[f"{model}_fedge_ms"],
    }
    if f"{model}_plain_ms" in ours:
        seconds = ours[f"{model}_plain_ms"] / 1e3
        figures[f"{model}_plain_vs_flower"] = flower.seconds_per_round / seconds
        share = 1e6 * ours[f"{model}_plain_mb"] / flower.peak_bytes
        figures[f"{model}_plain_memory_vs_flower"] = share
    if PEERS_PYTHON.exists():
        for processes in (1, 2):
            milliseconds = 1e3 * _pfl_seconds(model, processes, rounds)
            figures[f"{model}_pfl{processes}_ms"] = milliseconds
        best = min(figures[f"{model}_pfl{n}_ms"] for n in (1, 2))
        figures[f"{model}_vs_pfl"] = best / ours[f"{model}_fedge_ms"]
    return figures


def _pfl_seconds(model: str, processes: int, rounds: int) -> float:
    command = [str(PEERS_PYTHON), "-m", "simulations.benchmarks.pfl_peer"]
    command += ["--model", model, "--processes", str(processes)]
    command += ["--rounds", str(rounds)]
    for _ in range(_PFL_TRIES):
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            told = json.loads(done.stdout.splitlines()[-1])
            return float(told["seconds_per_round"])
    raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="few rounds, for a check")
    parser.add_argument(
        "--no-peers", action="store_true", help="leave out others' runtimes (minutes)"
    )
    options = parser.parse_args(arguments)
    figures = measure(quick=options.quick, peers=not options.no_peers)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>34}  {value:.4g}")


if __name__ == "__main__":
    main()
