"""A fleet's behaviour in a simulated run: how much work it has, its record, a picture.

`fleet.csv` holds one row per message in the format of docs/fleets.md, so that a
simulated run can itself be replayed with `fleet=trace`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from torch import nn

from fedge.arrays import Int64
from fedge.data.dataset import FederatedData
from fedge.data.partition import partition
from fedge.fleet.event import Event, Outcome
from fedge.fleet.fleet import make_fleet
from fedge.fleet.trace import TraceWriter, read_trace, write_trace
from fedge.flower.virtual_fleet import VirtualFleet
from server.app import JOURNAL
from server.journal import read_rounds
from server.setup import Setup

TRACE = "fleet.csv"
PICTURE = "fleet.png"
# A backward pass computes two products (for the inputs and for the weights) where the
# forward pass computes one.
_FORWARD_AND_BACKWARD = 3
_TRAINING = ("train", "train:fit")
_RELEASE = ("query.release", "evaluate.release")


@contextmanager
def fleet_grid(inner: Grid, setup: Setup, folder: Path) -> Iterator[Grid]:
    """Give a base grid the behaviour of the run's fleet, and record it in `folder`.

    A fleet without virtual time changes and records nothing. A resumed run forgets the
    rows of rounds that were not finished, and its clock goes on after those that were.

    Args:
        inner: the base grid.
        setup: the run.
        folder: of the run.

    Raises:
        ConfigError: the fleet's settings are wrong.
        DataError: a trace is damaged.
    """
    config = setup.experiment.fleet
    if not config.is_virtual:
        yield inner
        return
    fleet = make_fleet(
        config, num_devices=setup.num_devices, seed=setup.experiment.run.seed
    )
    start_seconds = _forget_unfinished(folder)
    with TraceWriter(folder / TRACE) as writer:
        yield VirtualFleet(
            inner,
            fleet,
            flops=flops_of(setup),
            start_seconds=start_seconds,
            on_event=writer.write,
        )


def flops_of(setup: Setup) -> Callable[[int, str], float]:
    """Return the operations that a message takes, by device and phase.

    Training costs forward and backward for each example of each step, or
    `fleet.flops_per_request` if that is set; evaluating costs forward for each example;
    everything else nothing.
    """
    train, fixed = setup.experiment.train, setup.experiment.fleet.flops_per_request

    @cache
    def forward() -> float:
        return flops_per_example(setup.model, setup.data)

    @cache
    def parts() -> Sequence[Int64]:
        return partition(
            setup.data,
            setup.experiment.partition,
            num_clients=setup.num_devices,
            seed=setup.experiment.run.seed,
        )

    def flops(device: int, phase: str) -> float:
        if phase.startswith("evaluate"):
            return forward() * len(parts()[device])
        if phase not in _TRAINING:
            return 0.0
        if fixed > 0.0:
            return fixed
        seen = train.steps * train.batch_size or train.epochs * len(parts()[device])
        return _FORWARD_AND_BACKWARD * forward() * seen

    return flops


def flops_per_example(model: nn.Module, data: FederatedData) -> float:
    """Return the floating point operations of one example's forward pass.

    Source: torch.utils.flop_counter, which counts matrix products and convolutions.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from fedge.train.tensors import tensors_of

    first = data.train.take(np.zeros(1, np.int64))
    inputs, _ = tensors_of(first, data.info, torch.device("cpu"))
    was_training = model.training
    model.eval()  # one example has no batch statistics
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(inputs)
    finally:
        model.train(was_training)
    return float(counter.get_total_flops())


def _forget_unfinished(folder: Path) -> float:
    """Cut the record after the last finished round; return the clock's time there."""
    path = folder / TRACE
    if not path.exists():
        return 0.0
    journal = folder / JOURNAL
    finished = len(read_rounds(journal)) if journal.exists() else 0
    events = read_trace(path, may_be_cut=True)
    kept = events[: _first_unfinished(events, finished)]
    write_trace(path, kept)
    return kept[-1].clock_seconds if kept else 0.0


def _first_unfinished(events: Sequence[Event], finished: int) -> int:
    """Return the place of the first row that a resumed run will write again.

    Rows without a round (such as evaluations) belong to the round before them; the
    release comes after all rounds, and is pushed again.
    """
    if finished == 0:
        return 0
    for place, event in enumerate(events):
        number, _, attempt = event.group.partition(".")
        is_round = number.isdecimal() and attempt.isdecimal()
        if (is_round and int(number) >= finished) or event.phase in _RELEASE:
            return place
    return len(events)


def draw_fleet(folder: Path) -> None:
    """Write `fleet.png` from `fleet.csv`, if the run has one with answers in it.

    Raises:
        DataError: the record is damaged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = folder / TRACE
    events = read_trace(path, may_be_cut=True) if path.exists() else []
    answered = [event for event in events if event.outcome is Outcome.ok]
    if not answered:
        return
    figure = Figure((9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = sorted({event.profile for event in answered})
    _draw_times(left, answered, names)
    _draw_energy(right, events, names)
    figure.savefig(folder / PICTURE, dpi=120)


def _draw_times(axes: Any, answered: Sequence[Event], names: Sequence[str]) -> None:  # noqa: ANN401
    """Draw the mean time per device and training round, by phase."""
    num_rounds: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for event in answered:
        num_rounds[event.profile].add((event.device, event.group))
    left = np.zeros(len(names))
    for label in ("download", "compute", "upload"):
        seconds = np.zeros(len(names))
        for event in answered:
            place = names.index(event.profile)
            seconds[place] += getattr(event, f"{label}_seconds")
        seconds /= [len(num_rounds[name]) for name in names]
        axes.barh(names, seconds, left=left, label=label)
        left += seconds
    axes.set(xlabel="virtual seconds per device and round")
    axes.legend()


def _draw_energy(axes: Any, events: Sequence[Event], names: Sequence[str]) -> None:  # noqa: ANN401
    """Draw what each device used in the whole run, by profile."""
    joules: dict[str, dict[int, float]] = {name: defaultdict(float) for name in names}
    for event in events:
        if event.profile in joules:
            joules[event.profile][event.device] += event.energy_joules
    axes.boxplot(
        [list(joules[name].values()) for name in names],
        orientation="horizontal",
        tick_labels=list(names),
    )
    axes.set(xlabel="energy per device, whole run (J)")
