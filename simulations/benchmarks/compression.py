"""How small models get, what that costs, and how little changes between releases.

    python -m simulations.benchmarks.compression [--json] [--quick] [--only NAME ...]
        [--data-root FOLDER] [--update docs/compression.md]

Each pipeline is a whole federation, twice: dense (float32, nothing removed) and small
(channels and weights go while the model trains, then the smallest form that loses no
more than a point). Ratios are bytes of the dense float32 ONNX file over bytes that are
sent; speed-ups are the small file's, measured in turns on one thread. Accuracies are of
the files, on held-out data. Publishing is weights in, compressed bytes out, with the
architecture traced before.

Deltas: an int8 CNN after consecutive rounds, on the scales of the first; sizes as a
share of the float32 ONNX file. QAT: a network shipped in four bits, with and without
training for that in the last rounds. Training: a step of a device without PyTorch
against one with it (more of that in `torch_free`).
"""

import argparse
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedge.compress.delta import make_delta
from fedge.compress.int4 import store_int4
from fedge.compress.quantize import quantize_int8
from fedge.compress.requantize import requantize
from simulations.benchmarks.compression_runs import Figures, pipeline, trained
from simulations.benchmarks.torch_free import clients

_DELTA_ROUNDS = (12, 13, 14, 15)
_DEAD_ZONE, _HEADROOM = 3, 0.15
_QUICK_ROUNDS = 20
_BEGIN, _END = "<!-- figures -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Two federations.

    Attributes:
        title: for the table.
        overrides: settings of both.
        small: settings of the small one.
        seeds: runs.
        needs_data: whether its data is read from --data-root.
    """

    title: str
    overrides: tuple[str, ...]
    small: tuple[str, ...] = ("compression=small",)
    seeds: tuple[int, ...] = (0, 1, 2)
    needs_data: bool = False


PIPELINES: Mapping[str, Pipeline] = {
    # Half a million parameters and six million multiplications, for 8 x 8 pixels.
    "digits_cnn": Pipeline(
        "CNN on digits",
        (
            "model=cnn", "model.widths=[64,64,128,128]", "model.pool_every=2",
            "model.hidden=480", "run.rounds=40",
        ),
        (
            "compression=small", "compression.channel_sparsity=0.875",
            # What a vector register of float32 holds.
            "compression.channel_multiple=16", "compression.sparsity=0",
        ),
    ),
    "digits_mobilenet": Pipeline(
        "MobileNet-style on digits",
        (
            "model=mobilenet", "run.rounds=80", "train.schedule=cosine",
            "train.final_factor=0.05",
        ),
        (
            "compression=small", "compression.channel_sparsity=0.5",
            "compression.sparsity=0.3",
        ),
    ),
    "har_cnn1d": Pipeline(
        "1-D CNN on UCI HAR",
        (
            "data=uci_har", "model=cnn1d", "partition=natural", "fleet.num_devices=0",
            "run.cohort=10", "run.rounds=60", "run.evaluate_every=60",
            "train.epochs=1", "train.learning_rate=0.01",
        ),
        ("compression=small", "compression.channel_sparsity=0.7"),
        needs_data=True,
    ),
    # A harder data set needs more channels to stay within a point.
    "fashion_cnn": Pipeline(
        "CNN on Fashion-MNIST",
        (
            "data=fashion_mnist", "model=cnn_fashion", "fleet=hundred", "run=long",
            "train.batch_size=32", "train.learning_rate=0.03", "train.epochs=2",
            "train.schedule=cosine", "train.final_factor=0.05",
        ),
        (
            "compression=small", "compression.channel_sparsity=0.6",
            # The channels have taken most of the point; the form may take the rest.
            "compression.max_accuracy_drop=0.001",
        ),
        seeds=(0,),
        needs_data=True,
    ),
}  # fmt: skip
_QAT = (
    "data=fashion_mnist", "model=mobilenet_v2", "model.widths=[8,16]",
    "model.hidden=32", "partition=iid", "fleet=hundred", "run.cohort=10",
    "run.rounds=24", "run.evaluate_every=24", "train.batch_size=32", "train.epochs=1",
    # Both take small steps in the last rounds.
    "train.schedule=step", "train.decay_rounds=14", "train.decay_factor=0.1",
    "compression=none",
)  # fmt: skip
_QAT_ON = (
    "compression.quantization=int4", "compression.qat_rounds=10",
    "compression.qat_rate_factor=1",
)  # fmt: skip
_COLUMNS = (
    ("model", "title", ""),
    ("float32 kB", "dense_kb", ".0f"),
    ("sent kB", "sent_kb", ".1f"),
    ("ratio", "ratio", ".1f"),
    ("accuracy", "dense_accuracy", ".4f"),
    ("shipped", "accuracy", ".4f"),
    ("faster, batch 1", "speedup_b1", ".1f"),
    ("batch 32", "speedup_b32", ".1f"),
    ("than eager, batch 1", "speedup_vs_eager_b1", ".0f"),
    ("batch 32", "speedup_vs_eager_b32", ".0f"),
    ("publish s", "publish_seconds", ".2f"),
)
NAMES = (*PIPELINES, "deltas", "qat", "training")


def deltas() -> Figures:
    """Return what consecutive rounds' int8 models cost as deltas."""
    chain = [
        trained("model=cnn", f"run.rounds={rounds}", "compression=none")
        for rounds in _DELTA_ROUNDS
    ]
    files = [result.onnx() for result in chain]
    first = quantize_int8(files[0], chain[0].inputs(256))
    start = requantize(first, files[0], headroom=_HEADROOM)
    figures: Figures = {}
    for name, zone in (("delta_fraction", 0), ("delta_fraction_dead_zone", _DEAD_ZONE)):
        base, sizes, drops = start, [], []
        for result, file in zip(chain[1:], files[1:], strict=True):
            new = requantize(base, file, dead_zone=zone)
            sizes.append(len(make_delta(base, new, level=19)) / len(file))
            drops.append(result.accuracy(file) - result.accuracy(new))
            base = new
        figures[name] = statistics.fmean(sizes)
        figures[f"{name}_accuracy_drop"] = float(np.max(drops))
    return figures


def qat(data_root: str, seeds: Sequence[int]) -> Figures:
    """Return accuracies of a network in four bits, trained for that or not."""
    runs = []
    for seed in seeds:
        settings = (*_QAT, f"data.root={data_root}", f"run.seed={seed}")
        plain, aware = trained(*settings), trained(*settings, *_QAT_ON)
        file = plain.onnx()
        runs.append(
            (
                plain.accuracy(file),
                plain.accuracy(store_int4(file)),
                aware.accuracy(store_int4(aware.onnx())),
            )
        )
    float32, ptq, aware_int4 = np.mean(runs, axis=0).tolist()
    return {
        "qat_float32_accuracy": float32,
        "qat_int4_ptq_accuracy": ptq,
        "qat_int4_qat_accuracy": aware_int4,
        "qat_gap_closed": (aware_int4 - ptq) / (float32 - ptq),
    }


def measure(only: Sequence[str], *, quick: bool, data_root: str) -> Figures:
    """Return the figures of the named parts; those whose data is missing are left out.

    Args:
        only: some of `NAMES`.
        quick: one seed of 20 rounds each, and nothing that reads files.
        data_root: folder with uci-har/ and fashion-mnist/; "" for none.
    """
    figures: Figures = {}
    has_data = bool(data_root) and not quick
    for name, part in PIPELINES.items():
        if name in only and (has_data or not part.needs_data):
            settings = part.overrides
            if part.needs_data:
                settings = (*settings, f"data.root={data_root}")
            if quick:
                settings = (*settings, f"run.rounds={_QUICK_ROUNDS}")
            seeds = part.seeds[:1] if quick else part.seeds
            figures |= pipeline(name, settings, part.small, seeds)
    if "digits_cnn" in only:
        figures["publish_seconds"] = figures["digits_cnn_publish_seconds"]
    if "deltas" in only:
        figures |= deltas()
    if "training" in only:
        key = "onnx_train_vs_torch_speed"
        figures[key] = clients("cnn")[key]
    if "qat" in only and has_data:
        figures |= qat(data_root, (0, 1, 2))
    return figures


def rows(figures: Figures) -> dict[str, str]:
    """Return the pipelines' figures as rows of a Markdown table, by title."""
    found = {}
    for name, part in PIPELINES.items():
        if f"{name}_ratio" in figures:
            cells = [part.title] + [
                format(figures[f"{name}_{key}"], form) for _, key, form in _COLUMNS[1:]
            ]
            found[part.title] = "| " + " | ".join(cells) + " |"
    return found


def table(rows_by_title: Mapping[str, str]) -> str:
    """Return a Markdown table of these rows, in the order of the pipelines."""
    head = "| " + " | ".join(head for head, _, _ in _COLUMNS) + " |"
    titles = [part.title for part in PIPELINES.values() if part.title in rows_by_title]
    return "\n".join(
        [head, "|" + " --- |" * len(_COLUMNS), *(rows_by_title[t] for t in titles)]
    )


def update(path: Path, figures: Figures) -> None:
    """Write the rows that were measured between the marks in a Markdown file.

    The other rows stay.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    inside, end, after = rest.partition(_END)
    if not begin or not end:
        raise SystemExit(f"{path}: has no {_BEGIN} ... {_END}")
    old = {line.split(" | ")[0].removeprefix("| "): line for line in inside.split("\n")}
    new = table(old | rows(figures))
    path.write_text(f"{before}{_BEGIN}\n{new}\n{_END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print a table, or one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--quick", action="store_true", help="one short run each, installed data only"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument(
        "--data-root",
        default=os.environ.get("FEDGE_DATA_ROOT", ""),
        help="folder with uci-har/ and fashion-mnist/ ($FEDGE_DATA_ROOT)",
    )
    parser.add_argument("--update", type=Path, help="renew rows of the table in FILE")
    options = parser.parse_args(arguments)
    figures = measure(options.only, quick=options.quick, data_root=options.data_root)
    if options.update:
        update(options.update, figures)
    if options.json:
        print(json.dumps(figures))
        return
    print(table(rows(figures)))
    for name, value in figures.items():
        print(f"{name:>40}  {value:.4g}")


if __name__ == "__main__":
    main()
