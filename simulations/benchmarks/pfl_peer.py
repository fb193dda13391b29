"""The engine benchmark's work on Apple's pfl-research, in one process or more.

    .venv-peers/bin/python -m simulations.benchmarks.pfl_peer --model cnn --processes 2

Runs in an environment of its own (`simulations/benchmarks/peers.txt`) and uses nothing
of fedge. Several processes are started by torchrun and add their sums up over gloo,
which is how pfl-research spreads a cohort over CPUs. The cohorts are the workload's, so
the model is the bare loop's; it can be written to a file to compare them.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend  # type: ignore[import-not-found]
from pfl.aggregate.weighting import (  # type: ignore[import-not-found]
    WeightByDatapoints,
)
from pfl.algorithm.base import NNAlgorithmParams  # type: ignore[import-not-found]
from pfl.algorithm.federated_averaging import (  # type: ignore[import-not-found]
    FederatedAveraging,
)
from pfl.callback.base import (  # type: ignore[import-not-found]
    TrainingProcessCallback,
)
from pfl.data.federated_dataset import (  # type: ignore[import-not-found]
    FederatedDataset,
)
from pfl.data.pytorch import PyTorchTensorDataset  # type: ignore[import-not-found]
from pfl.hyperparam.base import (  # type: ignore[import-not-found]
    NNEvalHyperParams,
    NNTrainHyperParams,
)
from pfl.metrics import Metrics, Weighted  # type: ignore[import-not-found]
from pfl.model.pytorch import PyTorchModel  # type: ignore[import-not-found]
from torch import Tensor, nn
from torch.nn import functional as F

from simulations.benchmarks import workload

# What torchrun tells each process that it starts.
_STARTED_BY_TORCHRUN, _RANK = "TORCHELASTIC_RUN_ID", "RANK"


class Trainable(nn.Module):
    """A model with the two methods by which pfl-research trains and evaluates it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of a batch."""
        return F.cross_entropy(self.model(images), labels)

    @torch.no_grad()
    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Weighted]:
        """Return the mean cross entropy of all examples."""
        loss = F.cross_entropy(self.model(images), labels, reduction="sum")
        return {"loss": Weighted(loss.item(), len(labels))}


class _Clock(TrainingProcessCallback):  # type: ignore[misc]  # pfl has no types
    """Notes when each round has ended."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        self.ended.append(time.perf_counter())
        return False, Metrics()


def train(module: Trainable, num_rounds: int) -> list[float]:
    """Train the module in place; return the seconds of every round but the first.

    The first round also evaluates: pfl-research leaves no way to switch that off.
    """
    clock = _Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=num_rounds,
            evaluation_frequency=num_rounds,
            train_cohort_size=workload.COHORT_SIZE,
            val_cohort_size=None,
        ),
        SimulatedBackend(
            training_data=_federated_data(),
            val_data=None,
            postprocessors=[WeightByDatapoints()],
        ),
        PyTorchModel(
            module,
            local_optimizer_create=torch.optim.SGD,
            central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
        ),
        NNTrainHyperParams(
            local_num_epochs=1,
            local_learning_rate=workload.LEARNING_RATE,
            local_batch_size=workload.BATCH_SIZE,
        ),
        NNEvalHyperParams(local_batch_size=None),
        callbacks=[clock],
        send_metrics_to_platform=False,
    )
    return np.diff(clock.ended).tolist()


def _federated_data() -> FederatedDataset:
    clients = _clients_in_turn()
    return FederatedDataset(
        lambda client: PyTorchTensorDataset(workload.client_tensors(client)),
        lambda: next(clients),
    )


def _clients_in_turn() -> Iterator[int]:
    for round_index in count():
        yield from workload.draw_cohort(round_index)


def _start_processes(num_processes: int, arguments: Sequence[str]) -> None:
    """Become torchrun, which runs this module again in so many processes."""
    module = "simulations.benchmarks.pfl_peer"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(num_processes), "-m", module, *arguments]
    os.execve(command[0], command, os.environ | {"OMP_NUM_THREADS": "1"})


def main() -> None:
    """Run once and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", choices=workload.MODEL_NAMES, default="small")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="at least 2")
    parser.add_argument("--params", type=Path, help="write the model here, as .npy")
    options = parser.parse_args()
    if options.processes > 1 and _STARTED_BY_TORCHRUN not in os.environ:
        _start_processes(options.processes, sys.argv[1:])
    torch.set_num_threads(1)
    np.random.seed(workload.SEED)  # pfl's, the same in all processes
    module = Trainable(workload.make_model(options.model))
    seconds = train(module, options.rounds)
    if int(os.environ.get(_RANK, "0")) > 0:
        return
    if options.params:
        vector = nn.utils.parameters_to_vector(module.parameters())
        np.save(options.params, vector.detach().numpy())
    figures = {
        "model": options.model,
        "num_processes": options.processes,
        "seconds_per_round": statistics.median(seconds),
        "seconds": seconds,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
