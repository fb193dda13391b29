"""RayGrid: the clients of a simulation on all machines of a Ray cluster.

    grid = RayGrid(clients="my_project.clients:make", arguments="{}", num_clients=1000)
    grid = RayGrid.of_app("my_project.client_app:app", num_clients=1000)

On each node there is one actor, which runs clients in worker processes of its own as
LocalGrid does: contexts and states stay where a client has run, a client that kills its
process is told apart from the others, and sums are made where the replies are. So what
travels grows with the nodes and not with the clients: the contents of a request once to
each actor, and one sum back (or the replies, for strategies that want them).

What is handed to Ray is text and bytes; how it moves them is its business. Clients are
not sent but made on each node, by a function that all nodes can import. They find it
where the actor finds fedge (installed, or by Ray's `runtime_env` or `PYTHONPATH`), and
in the folders of this process's `sys.path`, where these exist on the node.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Self

from flwr.app import Message

from fedge.errors import ConfigError
from fedge.flower.base_grid import BaseGrid, one_per_node, reduction_for
from fedge.flower.client_runner import UserConfig
from fedge.flower.partial import Reduction
from fedge.flower.ray_actor import HostSettings
from fedge.flower.ray_cluster import Place, RayCluster
from fedge.flower.ray_pool import RayPool

_MAX_WORKERS = 1 << 20  # more than any cluster has


class RayGrid(BaseGrid):
    """A Grid over `num_clients` virtual clients on a Ray cluster.

    Guarantee: the same clients give the same replies, or the same sum, as on a
    LocalGrid, whatever the number of nodes and workers, and if some of them are lost.

    Args:
        clients: a function that is told `arguments` and returns
            `fedge.flower.client_runner.Clients`, as "package.module:function". It runs
            on each node, before the workers start; it must not use a GPU itself.
        arguments: text for that function, such as JSON.
        num_clients: virtual clients; client i has node id i + 2.
        address: of a running cluster ("auto" finds it); empty starts one here.
        workers: processes that run clients, in all, at most one per CPU; None: one per
            CPU. Nodes that join later are used from the next request on.
        threads: of one client's computation.
        client_seconds: a client that computes for longer is ended and answers with an
            error; 0 for no limit.
        memory_bytes: private memory a worker may use beyond what it starts with; 0 for
            no limit.
        batching: compute clients together if the app says how.
        gpus_per_worker: share of a GPU that Ray reserves for a worker, 0 to 1. If it is
            not 0 there is one actor per GPU, and its workers see no other.
        run_id: the run.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        *,
        clients: str,
        num_clients: int,
        arguments: str = "",
        address: str = "",
        workers: int | None = None,
        threads: int = 1,
        client_seconds: float = 0.0,
        memory_bytes: int = 0,
        batching: bool = True,
        gpus_per_worker: float = 0.0,
        run_id: int = 1,
    ) -> None:
        _check(num_clients, workers, gpus_per_worker)
        super().__init__(num_clients, run_id)
        self._settings = HostSettings(
            clients=clients,
            arguments=arguments,
            num_clients=num_clients,
            run_id=run_id,
            workers=1,
            threads=threads,
            memory_bytes=memory_bytes,
            client_seconds=client_seconds,
            batching=batching,
            sys_path=[os.path.abspath(path) for path in sys.path],
        )
        self._address = address
        self._workers = min(workers or _MAX_WORKERS, num_clients)
        self._gpus_per_worker = gpus_per_worker
        self._cluster: RayCluster | None = None
        self._pool: RayPool | None = None

    @classmethod
    def of_app(
        cls,
        app: str,
        *,
        num_clients: int,
        run_config: UserConfig | None = None,
        address: str = "",
        workers: int | None = None,
        threads: int = 1,
        batching: bool = True,
        gpus_per_worker: float = 0.0,
    ) -> Self:
        """Return a grid whose clients run a ClientApp as it is.

        Args:
            app: the app, as "package.module:app".
            num_clients: virtual clients.
            run_config: what clients find in `context.run_config`.
            address: of a running cluster; empty starts one here.
            workers: processes that run clients, in all; None: one per CPU.
            threads: of one client's computation.
            batching: compute clients together if the app says how.
            gpus_per_worker: share of a GPU that Ray reserves for a worker.

        Raises:
            ConfigError: a number is out of range.
        """
        return cls(
            clients="fedge.flower.ray_actor:clients_of_app",
            arguments=json.dumps([app, num_clients, dict(run_config or {})]),
            num_clients=num_clients,
            address=address,
            workers=workers,
            threads=threads,
            batching=batching,
            gpus_per_worker=gpus_per_worker,
        )

    def start(self) -> Self:
        """Connect to the cluster and start the actors.

        Raises:
            ConfigError: Ray is not installed, clients cannot be made on a node, or no
                node has what workers need.
            TransportError: there is no cluster, or it has no room.
        """
        if self._pool is None:
            self._cluster = RayCluster(self._address)
            try:
                self._pool = self._started(self._cluster)
            except BaseException:
                self.close()
                raise
        return self

    def close(self) -> None:
        """End the actors, and Ray if it was started here; states are gone."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def _started(self, cluster: RayCluster) -> RayPool:
        def find_places() -> list[Place]:
            return cluster.places(self._workers, self._gpus_per_worker)

        def settings_for(workers: int) -> str:
            return replace(self._settings, workers=workers).to_json()

        if self._gpus_per_worker and not find_places():
            raise ConfigError(
                f"engine.gpus_per_worker: {self._gpus_per_worker}, but no node of the "
                f"Ray cluster has a GPU; set it to 0"
            )
        pool = RayPool(cluster, find_places, settings_for)
        try:
            pool.start()
        except BaseException:
            pool.close()
            raise
        return pool

    def _replies(
        self,
        messages: Iterable[Message],
        deadline: float | None,
        reduction: Reduction | None,
    ) -> Iterator[Message]:
        sent = list(messages)
        reduction = reduction_for(sent, reduction)
        for part in one_per_node(sent):
            yield from self._sort_out(part)
            if known := self._known(part):
                self.start()
                assert self._pool is not None
                yield from self._pool.stream(
                    known, deadline=deadline, reduction=reduction
                )


def _check(num_clients: int, workers: int | None, gpus_per_worker: float) -> None:
    if num_clients < 1:
        raise ConfigError(f"num_clients: {num_clients} must be at least 1")
    if workers is not None and not 1 <= workers <= _MAX_WORKERS:
        raise ConfigError(
            f"workers: {workers} not in [1, {_MAX_WORKERS}]; on a Ray cluster clients "
            f"run in processes of their own"
        )
    if not 0.0 <= gpus_per_worker <= 1.0:
        raise ConfigError(f"gpus_per_worker: {gpus_per_worker} not in [0, 1]")
