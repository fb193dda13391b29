"""`fedge export RUN --to BACKEND`: a run's model as a file for another runtime."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fedge.backends import BACKENDS
from fedge.errors import DataError

if TYPE_CHECKING:
    from fedge.commands.run_folder import FinishedRun
    from fedge.export.exporter import Exported, Exporter

    # A plain import would need a private name at run time.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_ABOUT = """\
Export the model that a run left, run the file in the backend's own runtime, and refuse
it if it does not compute what the network computes. int8 is calibrated on the run's
training data. Nothing is signed: what devices are sent comes from a run with a release.
"""
_PRECISIONS = ("float32", "int8", "int8_dynamic", "int4_dynamic")


def add_command(commands: "Subparsers") -> None:
    """Add `export` to the parser of `fedge`."""
    parser = commands.add_parser(
        "export", help="export a run's model for another runtime", description=_ABOUT
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="RUN",
        help="a run's folder (its last.safetensors), or a .safetensors file in it",
    )
    parser.add_argument("--to", choices=BACKENDS, default="onnx", help="default: onnx")
    parser.add_argument(
        "--precision", choices=_PRECISIONS, default="float32", help="default: float32"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: beside the model"
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        default=os.environ.get("FEDGE_DATA_ROOT") or None,
        metavar="DIR",
        help="where the run's data is, if it came from files ($FEDGE_DATA_ROOT)",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="package of a loader or network of your own (run.allow); may be repeated",
    )
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    from fedge.runtime.opening import needing

    with needing("server"):
        return _export_and_tell(arguments)


def _export_and_tell(arguments: argparse.Namespace) -> int:
    from fedge.backends import exporter_of
    from fedge.commands.run_folder import read_run
    from fedge.export.exporter import Precision, check_precision, export_checked

    exporter, precision = exporter_of(arguments.to), Precision(arguments.precision)
    check_precision(exporter, precision)
    run = read_run(arguments.model, arguments.data_root, allow=arguments.allow)
    exported = export_checked(
        exporter, run.network, run.calibration(), precision=precision
    )
    name = f"{run.file.stem}-{exporter.name}-{precision}{exporter.suffix}"
    out = arguments.out or run.file.with_name(name)
    try:
        out.write_bytes(exported.model)
    except OSError as exc:
        raise DataError(f"{out}: {exc.strerror}") from exc
    print(f"{out}: {len(exported.model)} bytes, for {exporter.name}, {precision}")
    _tell(run, exporter, exported)
    return 0


def _tell(run: "FinishedRun", exporter: "Exporter", exported: "Exported") -> None:
    parity = exported.parity
    predictor = exporter.open(exported.model, run.info.normalization)
    print(
        f"against the network: largest error {parity.max_abs_error:.3g}, "
        f"{parity.top1_agreement:.1%} of the decisions are the same"
    )
    print(f"score on held-out data: {run.score(predictor):.4f}")
