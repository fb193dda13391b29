"""A Ray cluster, as far as a grid needs one: nodes, actors on them, and their answers.

The only file that imports Ray, which is optional. It decides nothing but where actors
go: one on each node, with a worker for each of its CPUs; where workers need a GPU, one
for each GPU, so that no worker sees a GPU that others think is theirs.
"""

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from fedge.errors import ConfigError, TransportError
from fedge.flower.ray_actor import Host

_ENOUGH_OF_A_GPU = 1e-9  # three thirds are a whole

Handle: TypeAlias = Any  # Ray's types of actors and of what they are asked
Call: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Place:
    """Where an actor goes, and what it gets there.

    Attributes:
        node: Ray's id of the node.
        number: of the actor on its node.
        workers: processes that run clients, one CPU each.
        gpus: share of a GPU.
    """

    node: str
    number: int
    workers: int
    gpus: float


class LostError(Exception):
    """An actor, or what it has answered, is gone."""


class RayCluster:
    """A connection to Ray.

    Ray that runs in this process already is used as it is, and left alone by `close`.

    Args:
        address: of a running cluster ("auto" finds it); empty starts one here.

    Raises:
        ConfigError: Ray is not installed.
        TransportError: there is no cluster at this address.
    """

    def __init__(self, address: str) -> None:
        self._ray = import_ray()
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._connect(address)

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._is_ours:
            self._ray.shutdown()

    # -- nodes ------------------------------------------------------------------------

    def places(self, workers: int, gpus_per_worker: float) -> list[Place]:
        """Return where actors go.

        Args:
            workers: at most so many in all, spread evenly.
            gpus_per_worker: share of a GPU that each needs.
        """
        nodes = sorted((node["NodeID"], node["Resources"]) for node in self._alive())
        return spread(nodes, workers, gpus_per_worker)

    def is_alive(self, place: Place) -> bool:
        """Say whether a place's node is still there, as far as Ray knows."""
        return any(node["NodeID"] == place.node for node in self._alive())

    # -- actors -----------------------------------------------------------------------

    def start(self, place: Place) -> Handle:
        """Start an actor; whether that worked shows when it is asked."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return (
            self._ray.remote(Host)
            .options(
                num_cpus=place.workers,
                num_gpus=place.gpus,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(
                    place.node, soft=False
                ),
            )
            .remote()
        )

    def end(self, actor: Handle) -> None:
        """End an actor, if it has not ended by itself."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor, no_restart=True)

    def share(self, data: bytes) -> Call:
        """Put bytes where each node fetches them once."""
        return self._ray.put(data)

    def wait(self, calls: Sequence[Call], seconds: float | None) -> list[Call]:
        """Wait until something was answered or lost; return which."""
        ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=seconds)
        return list(ready)

    def answer(self, call: Call) -> bytes:
        """Return what an actor has answered.

        Raises:
            LostError: it is gone, or its answer is.
            TransportError: Ray could not run it.
        """
        errors = self._ray.exceptions
        try:
            answer: bytes = self._ray.get(call)
        except errors.RayTaskError as exc:
            raise TransportError(f"Ray: an actor cannot be asked: {exc}") from exc
        except errors.RayError as exc:
            raise LostError(" ".join(str(exc).split())) from exc
        return answer

    # -- Ray --------------------------------------------------------------------------

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _connect(self, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # What Ray will do by itself, and warns of: leave CUDA_VISIBLE_DEVICES alone
        # where no GPU was asked for.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        more = {} if address else {"include_dashboard": False}
        try:
            self._ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.WARNING,
                **more,
            )
        except (ConnectionError, RuntimeError, ValueError) as exc:
            raise TransportError(
                f"Ray: no cluster at {address!r} (engine.ray_address): {exc}; start "
                f"one with `ray start --head`, or leave the address empty"
            ) from exc


def spread(
    nodes: Sequence[tuple[str, Mapping[str, float]]],
    workers: int,
    gpus_per_worker: float,
) -> list[Place]:
    """Return which actors a cluster gets.

    Args:
        nodes: their ids and what they have.
        workers: at most so many in all, spread evenly.
        gpus_per_worker: share of a GPU that each needs, in [0, 1].
    """
    room = [
        (node, number, size)
        for node, resources in nodes
        for number, size in enumerate(_sizes(resources, gpus_per_worker))
    ]
    sizes = _share_out([size for _, _, size in room], workers)
    return [
        Place(node, number, size, size * gpus_per_worker)
        for (node, number, _), size in zip(room, sizes, strict=True)
        if size
    ]


def _sizes(resources: Mapping[str, float], gpus_per_worker: float) -> list[int]:
    """Return how many workers each actor of a node may have."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if gpus_per_worker == 0.0:
        return [cpus] if cpus else []
    if not gpus:
        return []
    at_a_gpu = int(1.0 / gpus_per_worker + _ENOUGH_OF_A_GPU)
    sizes = [
        min(at_a_gpu, cpus // gpus + (number < cpus % gpus)) for number in range(gpus)
    ]
    return [size for size in sizes if size]


def _share_out(room: Sequence[int], workers: int) -> list[int]:
    """Return sizes within `room` that are as even as can be, `workers` in all."""
    sizes = [0] * len(room)
    left = min(workers, sum(room))
    while left:
        for number, most in enumerate(room):
            if left and sizes[number] < most:
                sizes[number] += 1
                left -= 1
    return sizes


def import_ray() -> Any:  # noqa: ANN401 - a module
    """Return Ray.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import ray
    except ImportError as exc:
        raise ConfigError(
            "engine.kind: ray needs the package ray, which is not installed; "
            "pip install 'fedge[ray]'"
        ) from exc
    return ray
