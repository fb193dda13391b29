"""LocalGrid: every client on this machine, without a network, a queue or a poll.

It runs any Flower ClientApp of the Message API, in resident worker processes (`pool`)
or in this process. The content of a broadcast is handed to each worker once and shared
by all its clients; contexts are made when a client is first asked; a client that raises
becomes that client's error reply and the run goes on.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

from flwr.app import Message
from flwr.clientapp import ClientApp

from fedge.errors import ConfigError, TransportError
from fedge.flower.base_grid import (
    BaseGrid,
    in_order_of,
    one_per_node,
    reduction_for,
)
from fedge.flower.client_runner import (
    ClientRunner,
    Clients,
    UserConfig,
    no_node_config,
)
from fedge.flower.partial import Reduction
from fedge.flower.pool import Pool
from fedge.flower.processes import can_fork
from fedge.flower.worker_limits import Limits
from fedge.stopwatch import measure

__all__ = ["LocalGrid", "UserConfig"]


class LocalGrid(BaseGrid):
    """A Grid over `num_clients` virtual clients of this machine.

    Workers inherit everything this process has imported and made when they start, with
    the first message or with `start()`; nothing is pickled. What a client changes in
    global variables stays in its worker.

    Args:
        client_app: the app every client runs.
        num_clients: virtual clients; client i has node id i + 2 and the node config
            entries partition-id = i and num-partitions = num_clients. One that was
            never asked costs nothing.
        workers: processes that run clients; None takes one per core, 0 runs them in
            this process (for debugging, and where processes cannot be forked).
        threads: of one client's computation, in a worker.
        client_seconds: a client that computes for longer is ended and answers with an
            error; 0 for no limit. Needs workers.
        memory_bytes: private memory a worker may use beyond what it starts with; a
            client that needs more answers with an error; 0 for no limit.
        batching: compute clients together if the app says how
            (`fedge.flower.batching`).
        run_config: what clients find in `context.run_config`.
        node_config: further entries of a client's node config, by index.
        run_id: the run.

    Attributes:
        on_progress: told how many clients of a request were computed, of how many (0:
            not known), while the request is under way. It must return soon.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        client_app: ClientApp,
        *,
        num_clients: int,
        workers: int | None = None,
        threads: int = 1,
        client_seconds: float = 0.0,
        memory_bytes: int = 0,
        batching: bool = True,
        run_config: UserConfig | None = None,
        node_config: Callable[[int], UserConfig] | None = None,
        run_id: int = 1,
    ) -> None:
        _check(num_clients, workers, threads, client_seconds, memory_bytes)
        super().__init__(num_clients, run_id)
        self._clients = Clients(
            client_app,
            num_clients,
            run_id,
            dict(run_config or {}),
            node_config or no_node_config,
            batching,
        )
        self._workers = _number_of(workers, num_clients)
        self._limits = Limits(threads, memory_bytes)
        self._client_seconds = client_seconds
        self.on_progress: Callable[[int, int], None] = lambda _done, _asked: None
        self._pool: Pool | None = None
        self._runner = ClientRunner(self._clients)

    @property
    def client_app(self) -> ClientApp:
        """The app every client runs."""
        return self._clients.app

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that were started."""
        return self._pool.worker_pids if self._pool else []

    def start(self) -> Self:
        """Start the workers now, before this process has threads or more memory."""
        if self._workers and self._pool is None:
            self._pool = Pool(
                self._clients,
                num_workers=self._workers,
                limits=self._limits,
                client_seconds=self._client_seconds,
            )
        return self

    def close(self) -> None:
        """End the workers; the next message starts new ones, without states."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _replies(
        self,
        messages: Iterable[Message],
        deadline: float | None,
        reduction: Reduction | None,
    ) -> Iterator[Message]:
        if not self._workers:
            for num_done, message in enumerate(messages, start=1):
                if deadline is not None and time.monotonic() >= deadline:
                    return
                yield from self._answer_here(message)
                self.on_progress(num_done, 0)
            return
        sent = list(messages)
        reduction = reduction_for(sent, reduction)
        parts = one_per_node(sent)
        if len(parts) == 1 and len(self._known(sent)) == len(sent):
            yield from self._answers_of_pool(sent, deadline, reduction)
            return
        replies = [
            reply
            for part in parts
            for reply in self._answers_of_pool(part, deadline, reduction)
        ]
        yield from in_order_of(sent, replies)

    def _answer_here(self, message: Message) -> Iterator[Message]:
        yield from self._sort_out([message])
        for known in self._known([message]):
            with measure("client code"):
                (reply,) = self._runner.answers([known])
            yield reply

    def _answers_of_pool(
        self,
        messages: Sequence[Message],
        deadline: float | None,
        reduction: Reduction | None,
    ) -> Iterator[Message]:
        yield from self._sort_out(messages)
        if known := self._known(messages):
            self.start()
            assert self._pool is not None
            try:
                yield from self._pool.stream(
                    known,
                    deadline=deadline,
                    reduction=reduction,
                    on_progress=self.on_progress,
                )
            except TransportError:
                self.close()  # its workers are in no state to go on
                raise


def _check(
    num_clients: int,
    workers: int | None,
    threads: int,
    client_seconds: float,
    memory_bytes: int,
) -> None:
    if num_clients < 1:
        raise ConfigError(f"num_clients: {num_clients} must be at least 1")
    if workers is not None and not 0 <= workers <= 1024:
        raise ConfigError(f"workers: {workers} not in [0, 1024]")
    if workers and not can_fork():
        raise ConfigError(
            f"workers: {workers}, but {sys.platform} cannot run worker processes; "
            f"use workers=0"
        )
    if not 1 <= threads <= 1024:
        raise ConfigError(f"threads: {threads} not in [1, 1024]")
    if not client_seconds >= 0.0:
        raise ConfigError(f"client_seconds: {client_seconds} must be at least 0")
    if memory_bytes < 0:
        raise ConfigError(f"memory_bytes: {memory_bytes} must be at least 0")


def _number_of(workers: int | None, num_clients: int) -> int:
    if workers is not None:
        return min(workers, num_clients)
    if not can_fork():
        return 0
    return min(len(os.sched_getaffinity(0)), num_clients)
