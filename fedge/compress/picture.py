"""A picture of the candidates for a release: size, accuracy and latency at once."""

from collections.abc import Mapping
from typing import Any


def draw_candidates(figure: Any, report: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Draw each candidate by size and accuracy, coloured by latency; return the figure.

    The shipped one has a ring; those over a budget are crosses.

    Args:
        figure: a `matplotlib.figure.Figure`.
        report: what was measured (`CompressionReport.to_dict`).
    """
    axes = figure.subplots()
    slowest = max(c["latency_ms"] for c in report["candidates"])
    for candidate in report["candidates"]:
        place = ([candidate["packed_bytes"] / 1000], [candidate["accuracy"]])
        points = axes.scatter(
            *place,
            c=[candidate["latency_ms"]],
            vmin=0.0,
            vmax=slowest or 1.0,
            cmap="viridis_r",
            marker="x" if candidate["exceeded"] else "o",
            s=80,
            zorder=3,
        )
        if candidate["name"] == report["chosen"]:
            axes.scatter(*place, s=260, facecolors="none", edgecolors="tab:red")
        axes.annotate(
            "{name}, {latency_ms:.3f} ms".format(**candidate),
            (place[0][0], place[1][0]),
            xytext=(0, 12),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    where = f", estimated for {report['device']}" if report["device"] else ""
    figure.colorbar(points, ax=axes, label=f"one example (ms{where})")
    axes.set(xscale="log", xlabel="sent (kB)", ylabel="score on held-out data")
    axes.set_title("candidates; the ring is shipped, crosses exceed a budget")
    axes.margins(x=0.2, y=0.25)
    axes.grid(alpha=0.3)
    return figure
