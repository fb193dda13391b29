"""What LocalGrid costs, against a bare PyTorch loop in the same run.

    python -m simulations.benchmarks.engine [--json] [--quick]

The same clients train the same model on the same examples twice: once as Flower
messages through `PlainSum(Telemetry(LocalGrid))`, once in a plain loop that calls the
trainer and adds the updates up. The difference, per client, is the framework's
overhead. Rounds of the two alternate, so a busy machine slows both; medians are
reported.

The model has 100,000 parameters or so. Its training is kept short on purpose: overhead
is what is measured, not training.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Message

from clients.app import app as client_app
from clients.learner import Learner, learner_of
from fedge.arrays import Float32
from fedge.flower import LocalGrid, PlainSum, Telemetry
from fedge.flower.wire import TRAIN, TrainRequest
from fedge.seeding import Purpose, generator
from fedge.strategy import LocalSettings
from fedge.train.trainer import train_locally
from server.settings import compose_experiment
from server.setup import Setup, prepare

_OVERRIDES = (
    "model=mlp",
    "model.widths=[256,256,64]",  # 99,786 parameters on digits
    "partition=iid",
    "train.steps=1",
    "fleet.num_devices=50",
    "run.cohort=50",
    "release=none",
    "secagg=off",  # which has a benchmark of its own
)


@dataclass(frozen=True, slots=True)
class Job:
    """One round's work, the same for both ways.

    Attributes:
        setup: data, model and task.
        learner: the clients' model and data.
        request: what a training message says.
    """

    setup: Setup
    learner: Learner
    request: TrainRequest

    @property
    def num_clients(self) -> int:
        """Clients in a round."""
        return self.setup.num_devices


def make_job() -> Job:
    """Return the benchmark's work."""
    setup = prepare(compose_experiment(_OVERRIDES))
    request = TrainRequest(
        params=setup.initial_params,
        packed_mask=None,
        task=setup.task,
        spec_digest=setup.spec.digest,
        round_index=0,
        learning_rate=0.01,
        local=LocalSettings(),
    )
    return Job(setup, learner_of(setup.task, None, ()), request)


def round_on_grid(job: Job) -> Callable[[], None]:
    """Return a round as Flower messages."""
    local = LocalGrid(
        client_app,
        num_clients=job.num_clients,
        node_config=lambda _: {"secagg": "optional"},
    )
    grid, nodes = PlainSum(Telemetry(local)), list(local.get_node_ids())

    def one_round() -> None:
        content = job.request.to_content()
        messages = [Message(content, node, TRAIN, group_id="0") for node in nodes]
        (reply,) = grid.send_and_receive(messages)
        if reply.has_error():
            raise RuntimeError(reply.error.reason)

    return one_round


def round_in_loop(job: Job) -> Callable[[], None]:
    """Return the same round without messages, records, layers or a grid."""
    learner = job.learner

    def one_round() -> None:
        total: Float32 = np.zeros(job.setup.spec.size, np.float32)
        for index in range(job.num_clients):
            update = train_locally(
                learner.model,
                job.request.params,
                learner.examples(index),
                learner.info,
                learner.task.train,
                local=job.request.local,
                learning_rate=job.request.learning_rate,
                mask=None,
                rng=generator(learner.task.seed, Purpose.TRAIN, 0, index),
            )
            total += update.num_examples * update.delta

    return one_round


def measure(job: Job, *, num_rounds: int) -> dict[str, float]:
    """Return the figures; the two ways take turns."""
    ways = {"grid": round_on_grid(job), "loop": round_in_loop(job)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(num_rounds + 1):
        for name, one_round in ways.items():
            started = time.perf_counter()
            one_round()
            if index:  # the first round fills caches
                seconds[name].append(time.perf_counter() - started)
    grid, loop = (statistics.median(seconds[name]) for name in ("grid", "loop"))
    return {
        "num_params": job.setup.spec.size,
        "clients_per_round": job.num_clients,
        "rounds": num_rounds,
        "grid_ms_per_client": 1e3 * grid / job.num_clients,
        "bare_ms_per_client": 1e3 * loop / job.num_clients,
        "overhead_ms_per_client": 1e3 * (grid - loop) / job.num_clients,
        "grid_vs_bare": grid / loop,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures = measure(make_job(), num_rounds=5 if options.quick else 30)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>24}  {value:.4g}")


if __name__ == "__main__":
    main()
