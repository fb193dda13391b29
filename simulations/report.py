"""What a person looks at after a run: tables on the terminal, and pictures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fedge.compress.picture import draw_candidates
from fedge.config import Task
from fedge.data.partition import partition
from server.app import JOURNAL
from server.journal import RoundRecord, read_rounds
from server.setup import Setup
from simulations.round_profile import report_profile

_MAX_PARTS = 40
_SCORES = {Task.regression: "R²", Task.detection: "average precision"}


def write_report(setup: Setup, folder: Path) -> None:
    """Draw the pictures of a finished run into its folder and print its tables."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    draw_pictures(setup, read_rounds(folder / JOURNAL), summary, folder)
    console = Console()
    console.print(_table(summary))
    report_profile(folder, console)
    console.print(f"Everything of this run is in {folder}", soft_wrap=True)


def _table(summary: Mapping[str, Any]) -> Table:
    table = Table(title=f"{summary['data']}: {summary['rounds']} rounds")
    for column in ("", "float32", "shipped"):
        table.add_column(column, justify="right" if column else "left")
    device = (summary.get("compression") or {}).get("device")
    where = f", estimated for {device}" if device else ""
    score = _SCORES.get(summary["task"], "accuracy")
    rows = [
        (f"{score} (held-out)", "accuracy", "{:.4f}"),
        ("size (kB)", "bytes", "{:.1f}"),
        (f"latency, one example (ms{where})", "latency_ms", "{:.3f}"),
    ]
    for label, name, form in rows:
        scale = 1e-3 if name == "bytes" else 1.0
        cells = [
            _cell(summary[f"{name}_{w}"], form, scale) for w in ("fp32", "shipped")
        ]
        table.add_row(label, *cells)
    up, down = (summary[f"bytes_{way}_per_client_round"] for way in ("up", "down"))
    table.add_section()
    table.add_row("up, per device and round (kB)", _cell(up, "{:.1f}", 1e-3), "")
    table.add_row("down, per device and round (kB)", _cell(down, "{:.1f}", 1e-3), "")
    on_release = f"{summary['devices_on_release']} of {summary['devices']}"
    table.add_row("devices on the new model", "", on_release)
    return table


def _cell(value: float | None, form: str, scale: float) -> str:
    return "-" if value is None else form.format(value * scale)


def draw_pictures(
    setup: Setup,
    rounds: Sequence[RoundRecord],
    summary: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write rounds.png, bytes.png, labels.png, compression.png and candidates.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def save(figure: Figure, name: str) -> None:
        FigureCanvasAgg(figure)
        figure.savefig(folder / name, dpi=120)

    save(_draw_rounds(Figure((9, 3.6), layout="constrained"), rounds), "rounds.png")
    save(_draw_bytes(Figure((7, 3.6), layout="constrained"), rounds), "bytes.png")
    save(_draw_labels(Figure((8, 4.2), layout="constrained"), setup), "labels.png")
    if summary["accuracy_shipped"] is not None:
        figure = Figure((9, 3.2), layout="constrained")
        save(_draw_compression(figure, summary), "compression.png")
        figure = Figure((8, 4.5), layout="constrained")
        save(draw_candidates(figure, summary["compression"]), "candidates.png")


def _draw_rounds(figure: Any, rounds: Sequence[RoundRecord]) -> Any:  # noqa: ANN401
    numbers = np.array([record.round_index + 1 for record in rounds])
    scores = np.array([record.score for record in rounds])
    measured = np.isfinite(scores)
    left, right = figure.subplots(1, 2)
    left.plot(numbers[measured], scores[measured], marker=".")
    left.set(xlabel="round", ylabel="score on held-out data")
    right.plot(numbers, [record.train_loss for record in rounds], label="devices")
    losses = np.array([record.loss for record in rounds])
    right.plot(numbers[measured], losses[measured], label="held-out")
    right.set(xlabel="round", ylabel="loss", yscale="log")
    right.legend()
    if any(record.sparsity > 0 for record in rounds):
        zeros = left.twinx()
        zeros.fill_between(
            numbers, [r.sparsity for r in rounds], alpha=0.15, color="gray", step="mid"
        )
        zeros.set(ylabel="pruned share", ylim=(0, 1))
    return figure


def _draw_bytes(figure: Any, rounds: Sequence[RoundRecord]) -> Any:  # noqa: ANN401
    numbers = [record.round_index + 1 for record in rounds]
    axes = figure.subplots()
    for label, values in (
        ("down", [record.bytes_down for record in rounds]),
        ("up", [record.bytes_up for record in rounds]),
    ):
        axes.plot(numbers, np.cumsum(values) / 1e6, label=label)
    axes.set(xlabel="round", ylabel="training payload, all devices (MB)")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return figure


def _draw_labels(figure: Any, setup: Setup) -> Any:  # noqa: ANN401
    """Draw how much of each class a device has, or how much it has at all."""
    parts = partition(
        setup.data,
        setup.experiment.partition,
        num_clients=setup.num_devices,
        seed=setup.experiment.run.seed,
    )[:_MAX_PARTS]
    axes = figure.subplots()
    places = np.arange(len(parts))
    if setup.data.info.task is not Task.classification:
        axes.bar(places, [len(part) for part in parts])
    else:
        bottom = np.zeros(len(parts))
        for label, name in enumerate(setup.data.info.output_names):
            targets = [setup.data.train.targets[part] for part in parts]
            counts = np.array([np.count_nonzero(t == label) for t in targets])
            axes.bar(places, counts, bottom=bottom, label=name)
            bottom += counts
        axes.legend(fontsize=7, ncols=2, loc="upper left", bbox_to_anchor=(1, 1))
    axes.set(xlabel="device", ylabel="training examples")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_compression(figure: Any, summary: Mapping[str, Any]) -> Any:  # noqa: ANN401
    panels = [
        ("bytes", "size (kB)", 1e-3, "{:.1f}"),
        ("accuracy", "score on held-out data", 1.0, "{:.4f}"),
        ("latency_ms", "one example (ms)", 1.0, "{:.3f}"),
    ]
    for axes, (name, label, scale, form) in zip(
        figure.subplots(1, len(panels)), panels, strict=True
    ):
        values = [summary[f"{name}_{which}"] * scale for which in ("fp32", "shipped")]
        bars = axes.bar(["float32", "shipped"], values, color=["tab:gray", "tab:blue"])
        axes.bar_label(bars, [form.format(value) for value in values])
        axes.set(ylabel=label)
        axes.margins(y=0.15)
    return figure
