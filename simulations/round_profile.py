"""Where the time of a run's rounds went: a table on the terminal and `profile.png`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from server.profile import IDLE, OTHER, Share, read_profile

PICTURE = "profile.png"
_MAX_BARS = 100  # more rounds than this share bars, or a bar would be thinner than ink


def report_profile(folder: Path, console: Console) -> None:
    """Print the table of a run's profile and draw its picture, if there is one."""
    rounds = [share for share in read_profile(folder) if share.round_index >= 0]
    if rounds:
        console.print(profile_table(rounds))
        draw_profile(rounds, folder / PICTURE)


def profile_table(rounds: Sequence[Share]) -> Table:
    """Return where the time of these rounds went, in the mean."""
    clients = sum(share.clients for share in rounds)
    table = Table(title=f"Where the time of {len(rounds)} rounds went")
    table.add_column("")
    for column in ("share", "ms per round", "ms per client"):
        table.add_column(column, justify="right")
    for section in sections_of(rounds):
        total = section[-1][1]
        for name, seconds in section:
            table.add_row(
                name,
                f"{seconds / total:.1%}",
                f"{1e3 * seconds / len(rounds):.2f}",
                f"{1e3 * seconds / clients:.3f}" if clients else "-",
            )
        table.add_section()
    return table


def sections_of(rounds: Sequence[Share]) -> list[list[tuple[str, float]]]:
    """Return the table's sections: what took how many seconds, and their sum last.

    Guarantee: a section's rows add up to its last; the first section's are the wall
    time of the rounds.
    """
    by_coordinator = sum_by_name([share.coordinator for share in rounds])
    by_workers = sum_by_name([share.workers for share in rounds])
    cpu = {
        "coordinator": sum(share.coordinator_cpu_seconds for share in rounds),
        "workers": sum(share.workers_cpu_seconds for share in rounds),
    }
    num_workers = rounds[-1].num_workers
    parts = (
        ("coordinator, wall time", by_coordinator),
        (f"{num_workers} workers, wall time added up", by_workers),
        ("CPU time", cpu),
    )
    return [
        [*seconds.items(), (name, sum(seconds.values()))]
        for name, seconds in parts
        if sum(seconds.values()) > 0.0
    ]


def sum_by_name(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Add seconds up by name; what took longest first, what is unknown last."""
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = total.get(name, 0.0) + seconds
    rest = (OTHER, IDLE)
    return dict(sorted(total.items(), key=lambda item: (item[0] in rest, -item[1])))


def draw_profile(rounds: Sequence[Share], path: Path) -> None:
    """Draw what each round took as stacked bars: the coordinator and the workers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [("coordinator", [share.coordinator for share in rounds])]
    if any(share.num_workers for share in rounds):
        panels.append(("workers, added up", [share.workers for share in rounds]))
    figure = Figure((5 * len(panels), 3.6), layout="constrained")
    for axes, (title, parts) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _draw_bars(axes, rounds, parts)
        axes.set(title=title, ylabel="seconds of a round")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=120)


def _draw_bars(
    axes: Any,  # noqa: ANN401 - matplotlib's types are its own
    rounds: Sequence[Share],
    parts: Sequence[Mapping[str, float]],
) -> None:
    from matplotlib import colormaps

    per_bar = -(-len(rounds) // _MAX_BARS)
    firsts = range(0, len(rounds), per_bar)
    places = [rounds[first].round_index + 1 for first in firsts]
    bottom = np.zeros(len(firsts))
    colors = iter(colormaps["tab20"].colors)  # type: ignore[attr-defined]  # a list
    for name in sum_by_name(parts):
        seconds = np.array([part.get(name, 0.0) for part in parts])
        heights = [seconds[first : first + per_bar].mean() for first in firsts]
        color = "lightgray" if name in (OTHER, IDLE) else next(colors, "black")
        axes.bar(places, heights, per_bar, bottom=bottom, label=name, color=color)
        bottom += heights
    axes.set(xlabel="round")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
