"""What secure aggregation costs, against Flower's SecAgg+ in the same run.

    python -m simulations.benchmarks.secagg [--json] [--quick]

The same clients send the same updates through both protocols, with equal neighbours,
threshold and dropouts; rounds of the two alternate, so a busy machine slows both.
Times are CPU seconds. Flower does less for them: it signs nothing, and its masks come
from the Mersenne Twister. A client's time leaves out the check of everybody's
certificates, which is done once per process and reported as `first_join_seconds`.

`expand_vs_raw_aes` is the speed of adding masks over that of AES-256-CTR alone, and
`unmask_vs_raw_aes` the same for the whole of unmasking.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedge.secagg.graph import neighbourhoods
from fedge.secagg.keystream import MaskSeed, Suite, apply_masks, cipher_at
from simulations.benchmarks.fedge_secagg import run_fedge
from simulations.benchmarks.flower_secagg import Case, run_flower

FULL = Case(100, 1_000_000, 28, 15, 0.1)
QUICK = replace(FULL, num_clients=40)
LARGE = Case(1000, 1_000_000, 30, 17, 0.05, profile="r32")  # r24 ends at 256 clients
_EXPANSION_REPEATS = 15

# name of the figure, its bar, whether the bar is the least or the most
BARS = (
    ("unmask_vs_flower", 30.0, "least"),
    ("server_vs_flower", 25.0, "least"),
    ("client_vs_flower", 8.0, "least"),
    ("upload_vs_flower", 0.38, "most"),
    ("expand_vs_raw_aes", 0.70, "least"),
    ("unmask_vs_raw_aes", 0.60, "least"),
    ("server_cpu_seconds_n1000", 10.0, "most"),
)


def expansion_seconds(num_params: int, num_masks: int) -> tuple[float, float]:
    """Return the medians of adding masks and of AES-256-CTR alone, taking turns."""
    vector = np.zeros(num_params, np.uint32)
    zeros, stream = bytes(vector.nbytes), bytearray(vector.nbytes)
    keys = [index.to_bytes(32, "little") for index in range(num_masks)]
    seeds = [MaskSeed(key, Suite.AES256_CTR, 1) for key in keys]
    ours, raw = [], []
    for _ in range(_EXPANSION_REPEATS):
        started = time.process_time()
        for key in keys:
            cipher = cipher_at(key, Suite.AES256_CTR, start_byte=0)
            cipher.update_into(zeros, stream)
        between = time.process_time()
        apply_masks(vector, seeds)
        raw.append(between - started)
        ours.append(time.process_time() - between)
    return statistics.median(ours), statistics.median(raw)


def num_masks_to_remove(case: Case) -> int:
    """Return how many masks are in the survivors' sum (of a graph like the round's)."""
    near = neighbourhoods(n=case.num_clients, k=case.degree, seed=bytes(32))
    left = set(case.survivors)
    return len(left) + sum(len(left.intersection(near[i])) for i in case.dropped)


def compare(case: Case, *, repeats: int) -> dict[str, float | bool | str]:
    """Return the figures of `case`; rounds of the two protocols alternate."""
    ours, theirs = [run_fedge(case)], []
    for _ in range(repeats):
        theirs.append(run_flower(case))
        ours.append(run_fedge(case))
    num_masks = case.degree + 1
    expand, raw = expansion_seconds(case.num_params, num_masks)
    figures: dict[str, float | bool | str] = {}
    for name in ("unmask_seconds", "server_seconds", "client_seconds", "upload_bytes"):
        own, other = (
            statistics.median(getattr(cost, name) for cost in costs)
            for costs in (ours, theirs)
        )
        what = name.split("_", maxsplit=1)[0]
        ratio = own / other if what == "upload" else other / own
        figures |= {f"{what}_vs_flower": ratio, name: own, f"flower_{name}": other}
    unmask_seconds = statistics.median(cost.unmask_seconds for cost in ours)
    unavoidable = raw / num_masks * num_masks_to_remove(case)
    return figures | {
        "expand_vs_raw_aes": raw / expand,
        "unmask_vs_raw_aes": unavoidable / unmask_seconds,
        "raw_aes_gb_per_second": 4e-9 * case.num_params * num_masks / raw,
        "first_join_seconds": ours[0].first_join_seconds,
        "exact": all(cost.is_right for cost in ours),
        "num_clients": case.num_clients,
        "num_params": case.num_params,
        "degree": case.degree,
        "threshold": case.threshold,
        "dropout": case.dropout,
        "profile": case.profile,
        "repeats": repeats,
    }


def measure_large(case: Case) -> dict[str, float | bool | str]:
    """Return this project's figures for a cohort too large for Flower."""
    cost, n = run_fedge(case), case.num_clients
    return {
        f"server_cpu_seconds_n{n}": cost.server_seconds,
        f"unmask_cpu_seconds_n{n}": cost.unmask_seconds,
        f"client_cpu_seconds_n{n}": cost.client_seconds,
        f"exact_n{n}": cost.is_right,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--quick", action="store_true", help="40 clients once, without the 1000"
    )
    # For tests: other sizes, with everybody a neighbour of everybody.
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--params", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    case = QUICK if options.quick else FULL
    if options.clients:
        degree = options.clients - 1
        case = Case(options.clients, case.num_params, degree, degree // 2 + 1, 0.1)
    if options.params:
        case = replace(case, num_params=options.params)
    figures = compare(case, repeats=1 if options.quick else 2)
    if not options.quick:
        large = measure_large(LARGE)
        exact = bool(figures["exact"] and large["exact_n1000"])
        figures |= large | {"exact": exact}
    if options.json:
        print(json.dumps(figures))
    else:
        print(table(figures))
    if not figures["exact"]:
        sys.exit("the opened sum is not the survivors' sum")


def table(figures: dict[str, float | bool | str]) -> str:
    """Return the figures as lines of text, those with a bar first."""
    lines = [f"{'figure':<26}{'measured':>12}  bar"]
    for name, bar, kind in BARS:
        value = figures.get(name)
        if isinstance(value, float):
            met = value >= bar if kind == "least" else value <= bar
            sign = ">=" if kind == "least" else "<="
            verdict = "met" if met else "MISSED"
            lines.append(f"{name:<26}{value:>12.4g}  {sign} {bar:g}  {verdict}")
    named = {name for name, _, _ in BARS}
    for name, other in figures.items():
        if name not in named:
            shown = f"{other:.4g}" if isinstance(other, float) else str(other)
            lines.append(f"{name:<26}{shown:>12}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
