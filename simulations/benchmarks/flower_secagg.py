"""Flower's own SecAgg+ for one round in this process, timed part by part.

What runs is Flower's real workflow and its real client mod; only the network is left
out, and the model that goes down, which is the same for everybody. The words that both
sides of the comparison share are in here too: the work, the stopwatch and the cost.

Flower's workflow holds the masked vectors of all clients at once: 8 bytes times
clients times coordinates of memory.
"""

import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from flwr.common import (
    Code,
    FitRes,
    Parameters,
    Scalar,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.constant import ErrorCode
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    Key,
    Stage,
)
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.serverapp import Grid

from fedge.arrays import Float32, Float64
from fedge.flower import LocalGrid

MAX_WEIGHT = 1000.0
_MAX_ERROR = 1e-3  # of Flower's mean; it rounds to steps of 4e-6


@dataclass(frozen=True)
class Case:
    """One round's work, the same for both protocols.

    Attributes:
        num_clients: n, clients that are asked.
        num_params: m, coordinates of an update.
        degree: k, neighbours of each client; Flower counts degree + 1 shares.
        threshold: t, shares that recover a secret.
        dropout: share of the clients that go away when keys are already shared.
        profile: the ring, by name; Flower's is always 32 bits in words of 64.
    """

    num_clients: int
    num_params: int
    degree: int
    threshold: int
    dropout: float
    profile: str = "r24"

    @cached_property
    def dropped(self) -> frozenset[int]:
        """The clients that go away."""
        count = round(self.dropout * self.num_clients)
        chosen = np.random.default_rng(0).permutation(self.num_clients)[:count]
        return frozenset(chosen.tolist())

    @property
    def survivors(self) -> tuple[int, ...]:
        """The clients that stay."""
        return tuple(i for i in range(self.num_clients) if i not in self.dropped)

    def update(self, index: int) -> Float32:
        """Return a client's update, float32 in [-0.5, 0.5), shape (m,)."""
        rng = np.random.default_rng([1, index])
        return rng.random(self.num_params, np.float32) - np.float32(0.5)

    @staticmethod
    def weight(index: int) -> int:
        """Return a client's weight."""
        return 100 + index % 50


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round cost; seconds are CPU time.

    Attributes:
        unmask_seconds: server, from the last masked update on.
        server_seconds: server, the whole round.
        client_seconds: median client, keys, shares and masked update, no training.
        upload_bytes: one surviving client, all trips.
        first_join_seconds: what the first client of a process needs to check everybody
            else's certificate, which later rounds do not; 0 if there is no such check.
        is_right: whether the opened sum is the survivors'.
    """

    unmask_seconds: float
    server_seconds: float
    client_seconds: float
    upload_bytes: int
    first_join_seconds: float
    is_right: bool


class Stopwatch:
    """CPU seconds of this process, by label."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, label: str) -> Iterator[None]:
        """Count what happens inside."""
        started = time.process_time()
        try:
            yield
        finally:
            self._seconds[label] += time.process_time() - started

    def __getitem__(self, label: str) -> float:
        return self._seconds[label]


class _TimedGrid(LocalGrid):
    """A grid whose own and whose clients' time can be told from the server's."""

    def __init__(self, app: ClientApp, num_clients: int, watch: Stopwatch) -> None:
        # In this process: clients leave their times and sums in this program.
        super().__init__(app, num_clients=num_clients, workers=0)
        self._watch = watch

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        with self._watch.on("grid"):
            return super().send_and_receive(messages, timeout=timeout)


class _TimedWorkflow(SecAggPlusWorkflow):
    """Flower's workflow; notes when the last stage begins."""

    def __init__(self, case: Case, watch: Stopwatch) -> None:
        super().__init__(case.degree + 1, case.threshold, max_weight=MAX_WEIGHT)
        self._watch = watch
        self.grid_seconds_before_unmask = 0.0

    def unmask_stage(
        self, grid: Grid, context: LegacyContext, state: WorkflowState
    ) -> bool:
        self.grid_seconds_before_unmask = self._watch["grid"]
        with self._watch.on("unmask"):
            return super().unmask_stage(grid, context, state)


class _KeepMean(FedAvg):
    """Samples everybody; keeps the mean that SecAgg+ made instead of averaging it."""

    def __init__(self, num_clients: int) -> None:
        super().__init__(min_fit_clients=num_clients, min_available_clients=num_clients)
        self.mean: Parameters | None = None

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        self.mean = results[0][1].parameters
        return None, {}


class _Clients:
    """Clients with Flower's mod around a "training" that makes up an update."""

    def __init__(self, case: Case, watch: Stopwatch) -> None:
        self.case, self._watch = case, watch
        self.upload_bytes: defaultdict[int, int] = defaultdict(int)
        self.weighted_sum: Float64 = np.zeros(case.num_params)
        self.app = ClientApp(mods=[self._timed, secaggplus_mod])
        self.app.train()(self._train)

    def _timed(
        self, message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        index = _index(context)
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if index in self.case.dropped and stage == Stage.COLLECT_MASKED_VECTORS:
            gone = Error(ErrorCode.NODE_UNAVAILABLE, "dropped")
            return Message(gone, reply_to=message)
        label = "answer" if stage == Stage.UNMASK else "client"
        with self._watch.on(f"{label} {index}"):
            reply = call_next(message, context)
        sent = reply.content.config_records[RECORD_KEY_CONFIGS]
        self.upload_bytes[index] += sent.count_bytes()
        return reply

    def _train(self, message: Message, context: Context) -> Message:
        index = _index(context)
        with self._watch.on(f"train {index}"):
            update, weight = self.case.update(index), self.case.weight(index)
            self.weighted_sum += update * np.float64(weight)
            parameters = ndarrays_to_parameters([update])
            result = FitRes(Status(Code.OK, ""), parameters, weight, {})
            content = compat.fitres_to_recorddict(result, keep_input=False)
            return Message(content, reply_to=message)

    def seconds(self, index: int) -> float:
        """Return a client's time without its training."""
        return self._watch[f"client {index}"] - self._watch[f"train {index}"]


def run_flower(case: Case) -> Cost:
    """Return what one round of Flower's SecAgg+ costs.

    Raises:
        RuntimeError: Flower's round gave no mean, or a wrong one.
    """
    logging.getLogger("flwr").setLevel(logging.ERROR)
    watch = Stopwatch()
    clients, strategy = _Clients(case, watch), _KeepMean(case.num_clients)
    grid = _TimedGrid(clients.app, case.num_clients, watch)
    context, workflow = _context(grid, strategy), _TimedWorkflow(case, watch)
    with watch.on("round"):
        workflow(grid, context)
    _check_mean(strategy.mean, clients)
    asked_in_unmask = watch["grid"] - workflow.grid_seconds_before_unmask
    one = case.survivors[0]
    return Cost(
        unmask_seconds=watch["unmask"] - asked_in_unmask,
        server_seconds=watch["round"] - watch["grid"],
        client_seconds=statistics.median(clients.seconds(i) for i in case.survivors),
        upload_bytes=clients.upload_bytes[one],
        first_join_seconds=0.0,
        is_right=True,
    )


def _context(grid: LocalGrid, strategy: FedAvg) -> LegacyContext:
    manager = SimpleClientManager()
    for node_id in grid.get_node_ids():
        manager.register(GridClientProxy(node_id, grid, grid.run.run_id))
    nothing = ndarrays_to_parameters([np.zeros(1, np.float32)])
    state = RecordDict(
        {
            MAIN_CONFIGS_RECORD: ConfigRecord({WorkflowKey.CURRENT_ROUND: 1}),
            MAIN_PARAMS_RECORD: compat.parameters_to_arrayrecord(nothing, True),
        }
    )
    base = Context(
        run_id=grid.run.run_id, node_id=1, node_config={}, state=state, run_config={}
    )
    return LegacyContext(base, strategy=strategy, client_manager=manager)


def _check_mean(mean: Parameters | None, clients: _Clients) -> None:
    if mean is None:
        raise RuntimeError("Flower's SecAgg+ did not finish the round")
    weight = sum(clients.case.weight(i) for i in clients.case.survivors)
    (found,) = parameters_to_ndarrays(mean)
    error = float(np.abs(found - clients.weighted_sum / weight).max())
    if error > _MAX_ERROR:
        raise RuntimeError(f"Flower's SecAgg+ gave a wrong mean, off by {error}")


def _index(context: Context) -> int:
    return int(context.node_config["partition-id"])
