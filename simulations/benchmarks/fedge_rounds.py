"""The engine benchmark's work on fedge: our ClientApp on a LocalGrid with two workers.

A round is what the coordinator does: messages to a cohort through
`PlainSum(Telemetry(LocalGrid))`, one synthetic reply, a new model. Whether clients are
computed together is decided as a run decides it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message

from clients.app import app as client_app
from clients.learner import learner_of
from fedge.arrays import Float32
from fedge.config import Batching
from fedge.flower import LocalGrid, PlainSum, Telemetry
from fedge.flower.wire import TRAIN, TrainReply, TrainRequest, train_reply_layout
from fedge.seeding import Purpose, generator
from fedge.strategy import LocalSettings
from fedge.train.trainer import train_locally
from server.settings import compose_experiment
from server.setup import Setup, prepare
from simulations.batching import choose_batching
from simulations.benchmarks import workload

ALLOWED = ("simulations",)
_OVERRIDES = (
    "data.loader=simulations.benchmarks.workload:load",
    f"run.allow=[{','.join(ALLOWED)}]",
    "partition=iid",
    f"fleet.num_devices={workload.NUM_CLIENTS}",
    f"run.cohort={workload.COHORT_SIZE}",
    f"train.batch_size={workload.BATCH_SIZE}",
    f"train.learning_rate={workload.LEARNING_RATE}",
    "train.momentum=0",
    "train.epochs=1",
    "release=none",
    "compression=none",
    "secagg=off",  # which has a benchmark of its own
)


def make_setup(model_name: str, overrides: Sequence[str] = ()) -> Setup:
    """Return the benchmark's work with one of its models, and perhaps changes."""
    builder = f"model.builder=simulations.benchmarks.workload:build_{model_name}"
    return prepare(compose_experiment([*_OVERRIDES, builder, *overrides]))


@dataclass(slots=True)
class FedgeRounds:
    """Rounds of federated averaging; `fedge_rounds` makes it and cleans up after it.

    Attributes:
        setup: data, model, task.
        grid: whose workers run the clients.
        batched: whether clients are computed together.
        params: the global model, float32, shape (d,).
    """

    setup: Setup
    grid: LocalGrid
    batched: bool
    params: Float32 = field(init=False)
    _top: PlainSum = field(init=False)

    def __post_init__(self) -> None:
        self.params = self.setup.initial_params
        expect = train_reply_layout(self.setup.spec.size)
        self._top = PlainSum(Telemetry(self.grid), expect=expect)

    def __call__(self, round_index: int) -> None:
        """Train the workload's cohort of this round."""
        self.train(round_index, workload.draw_cohort(round_index))

    def train(self, round_index: int, cohort: Sequence[int]) -> None:
        """Train these clients and put the average in the model's place.

        Raises:
            RuntimeError: one of them failed.
        """
        content = self._request(round_index).to_content()
        nodes = self.grid.get_node_ids()
        group = str(round_index)
        messages = [
            Message(content, nodes[client], TRAIN, group_id=group) for client in cohort
        ]
        *failures, reply = self._top.send_and_receive(messages)
        if failures or reply.has_error():
            raise RuntimeError(f"{len(failures)} clients failed: see the log")
        update = TrainReply.from_content(reply.content, size=self.params.size)
        self.params = (self.params + update.delta).astype(np.float32)

    def _request(self, round_index: int) -> TrainRequest:
        return TrainRequest(
            params=self.params,
            packed_mask=None,
            task=self.setup.task,
            spec_digest=self.setup.spec.digest,
            round_index=round_index,
            learning_rate=self.setup.experiment.train.learning_rate,
            local=LocalSettings(),
        )


@contextmanager
def fedge_rounds(
    setup: Setup, *, num_workers: int, batching: Batching | None = None
) -> Iterator[FedgeRounds]:
    """Give rounds, ready to run.

    Guarantee: after the block there is no process left that was not there before.

    Args:
        setup: from `make_setup`.
        num_workers: processes; 0 runs clients in this one.
        batching: computing clients together; None decides as a run does.
    """
    batched = (batching or choose_batching(setup)) is Batching.always
    # Before the workers are forked, so that all share the data.
    learner_of(setup.task, None, ALLOWED).examples(0)
    config = {"secagg": "optional", "allow": ",".join(ALLOWED)}
    with LocalGrid(
        client_app,
        num_clients=setup.num_devices,
        workers=num_workers,
        batching=batched,
        node_config=lambda _: config,
    ) as grid:
        yield FedgeRounds(setup, grid, batched)


def trainer_loop(setup: Setup) -> Callable[[int], None]:
    """Return rounds without messages, records, layers or a grid: the trainer alone."""
    learner = learner_of(setup.task, None, ALLOWED)

    def one_round(round_index: int) -> None:
        total: Float32 = np.zeros(setup.spec.size, np.float32)
        for index in workload.draw_cohort(round_index):
            update = train_locally(
                learner.model,
                setup.initial_params,
                learner.examples(index),
                learner.info,
                learner.task.train,
                local=LocalSettings(),
                learning_rate=learner.task.train.learning_rate,
                mask=None,
                rng=generator(learner.task.seed, Purpose.TRAIN, round_index, index),
            )
            total += update.num_examples * update.delta

    return one_round
