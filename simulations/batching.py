"""Whether this machine computes several clients faster together: measured before a run.

The choice is a setting of the run from then on, so that a resumed run computes what the
uninterrupted one would have computed.
"""

import time
from collections.abc import Callable

import numpy as np

from fedge.arrays import Int64
from fedge.config import Backend, Batching, EngineKind
from fedge.data.client import client_part
from fedge.seeding import Purpose, generator
from fedge.strategy import LocalSettings
from server.setup import Setup

_NUM_CLIENTS = 16
_REPEATS = 3
# Together must be clearly faster: a choice that hangs on noise would not be repeatable.
_MIN_GAIN = 1.5
# A client that computes for longer is limited by arithmetic, where stacking gains
# nothing and costs memory (measured on CPUs: nothing above 10 ms gained).
_MAX_CLIENT_SECONDS = 0.02


def choose_batching(setup: Setup) -> Batching:
    """Return `always` or `never` for `engine.batching=auto`.

    A few clients are trained alone and together, for some tens of milliseconds.
    """
    experiment = setup.experiment
    engine = experiment.engine
    if engine.batching is not Batching.auto:
        return engine.batching
    if engine.kind is EngineKind.flower or not engine.workers:
        return Batching.never
    if experiment.train.backend is Backend.onnx:  # graphs run one by one
        return Batching.never
    from fedge.train.stacked import can_stack

    if not can_stack(setup.model, experiment.train) or setup.num_devices < 2:
        return Batching.never
    alone, together = _contestants(setup)
    if _seconds(alone) / _num_clients(setup) > _MAX_CLIENT_SECONDS:
        return Batching.never
    gain = min(_seconds(alone) for _ in range(_REPEATS)) / min(
        _seconds(together) for _ in range(_REPEATS)
    )
    return Batching.always if gain >= _MIN_GAIN else Batching.never


def _num_clients(setup: Setup) -> int:
    return min(_NUM_CLIENTS, setup.num_devices)


def _contestants(setup: Setup) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return training of the same few clients one by one, and together."""
    from fedge.train.stacked import train_stacked
    from fedge.train.trainer import train_locally

    train, local = setup.experiment.train, LocalSettings()
    parts = [_part(setup, index) for index in range(_num_clients(setup))]

    def rngs() -> list[np.random.Generator]:
        return [generator(0, Purpose.TRAIN, index) for index in range(len(parts))]

    def alone() -> object:
        return [
            train_locally(
                setup.model,
                setup.initial_params,
                setup.data.train.take(part),
                setup.data.info,
                train,
                local=local,
                learning_rate=train.learning_rate,
                mask=None,
                rng=rng,
            )
            for part, rng in zip(parts, rngs(), strict=True)
        ]

    def together() -> object:
        return train_stacked(
            setup.model,
            setup.initial_params,
            setup.data.train,
            parts,
            setup.data.info,
            config=train,
            local=local,
            learning_rate=train.learning_rate,
            mask=None,
            rngs=rngs(),
        )

    return alone, together


def _part(setup: Setup, index: int) -> Int64:
    return client_part(
        setup.data,
        setup.experiment.partition,
        num_clients=setup.num_devices,
        seed=setup.experiment.run.seed,
        client_index=index,
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
