"""How fedge's simulator scales: registered clients, cohort size, peak memory.

    python -m simulations.benchmarks.scaling --clients 1000000 --cohort 100

One measurement per process, so that each has a peak of its own. Clients draw their
examples (`partition=bootstrap`), so there may be more clients than examples.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from simulations.benchmarks.fedge_rounds import fedge_rounds, make_setup
from simulations.benchmarks.flower_runtime import REPOSITORY
from simulations.benchmarks.memory import watch_memory

_SEED = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """What one run took.

    Attributes:
        num_clients: registered.
        cohort: asked in a round.
        num_params: of the model.
        ms_per_client: of a round, divided by the cohort.
        peak_mb: PSS of the coordinator and its workers, MB.
    """

    num_clients: int
    cohort: int
    num_params: int
    ms_per_client: float
    peak_mb: float


def measure_scale(num_clients: int, cohort: int, model: str, num_rounds: int) -> Scale:
    """Run some rounds in a child process and return what they took.

    Raises:
        RuntimeError: the run failed; the message has its output.
    """
    command = [sys.executable, "-m", "simulations.benchmarks.scaling"]
    command += ["--clients", str(num_clients), "--cohort", str(cohort)]
    command += ["--model", model, "--rounds", str(num_rounds)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return Scale(**json.loads(done.stdout.splitlines()[-1]))


def _run(num_clients: int, cohort: int, model: str, num_rounds: int) -> Scale:
    torch.set_num_threads(1)
    changes = [
        "partition=bootstrap",
        f"fleet.num_devices={num_clients}",
        f"run.cohort={cohort}",
    ]
    if model == "million":  # short training: memory is what is asked
        changes += ["model.builder=''", "model=mlp", "model.widths=[1024,192]"]
        changes += ["train.steps=1"]
    setup = make_setup("small", changes)
    seconds = []
    with (
        watch_memory(os.getpid()) as peak,
        fedge_rounds(setup, num_workers=2) as rounds,
    ):
        for round_index in range(num_rounds + 1):
            rng = np.random.default_rng([_SEED, round_index])
            chosen = rng.choice(num_clients, cohort, replace=False).tolist()
            started = time.perf_counter()
            rounds.train(round_index, chosen)
            seconds.append(time.perf_counter() - started)
    return Scale(
        num_clients,
        cohort,
        setup.spec.size,
        1e3 * statistics.median(seconds[1:]) / cohort,
        peak.num_bytes / 1e6,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure once and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--model", choices=("small", "million"), default="small")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    scale = _run(options.clients, options.cohort, options.model, options.rounds)
    print(json.dumps(asdict(scale)))


if __name__ == "__main__":
    main()
