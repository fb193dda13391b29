"""One interface to everything that a network can be exported to, and its checks.

An exporter makes a file; `export_checked` is the way to call it: no file leaves it that
computes something else than the network, or that tells of the machine it was made on.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from typing import Protocol

import torch

from fedge.arrays import AnyArray, check_finite
from fedge.errors import CompressionError, ConfigError, DataError, VerificationError
from fedge.export.parity import Limits, Parity, as_they_are, check_predictor
from fedge.runtime.predictor import Predictor
from fedge.runtime.preprocess import Normalization


class Precision(StrEnum):
    """Number format of an exported model."""

    float32 = auto()
    int8 = auto()  # weights and activations, ranges fixed by calibration examples
    int8_dynamic = auto()  # weights; the range of activations is found while running
    int4_dynamic = auto()  # weights of 4 bits, activations as in int8_dynamic


# What a working file keeps: trained networks (convolutional, recurrent, attention)
# stayed below half of these errors in every backend; broken files are far above them.
LIMITS = {
    Precision.float32: Limits(max_error=1e-4, min_agreement=1.0),
    Precision.int8: Limits(max_error=0.25, min_agreement=0.9),
    Precision.int8_dynamic: Limits(max_error=0.25, min_agreement=0.9),
    Precision.int4_dynamic: Limits(max_error=0.5, min_agreement=0.8),
}

Quantize = Callable[[bytes, AnyArray], bytes]
"""From a float32 ONNX file and model inputs to an int8 ONNX file."""

_PARITY_EXAMPLES = 64
_SHORTEST_MARK = 5  # shorter texts turn up in any megabyte of weights


class Exporter(Protocol):
    """A backend: a file format, and what opens it here."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    @property
    def suffix(self) -> str:
        """Of the files, with the dot."""
        ...

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Number formats it can write."""
        ...

    def export(
        self, module: torch.nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        """Return the network, in evaluation mode, as a file's bytes.

        Args:
            module: takes one tensor and returns one tensor, batch axis first in both;
                is left as it was.
            inputs: model inputs, float32 or int64, shape (n, ...), n >= 1; int8 is
                calibrated on all of them.
            precision: one of `precisions`.

        Raises:
            CompressionError: the module cannot be expressed in this format.
            ConfigError: the backend is not installed.
        """
        ...

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open an exported file as devices do; raises what `open_predictor` raises."""
        ...


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that computes what the network computes.

    Attributes:
        model: the file's bytes.
        parity: how near it is to the network.
    """

    model: bytes
    parity: Parity


def export_checked(
    exporter: Exporter,
    module: torch.nn.Module,
    inputs: AnyArray,
    *,
    precision: Precision = Precision.float32,
    limits: Limits | None = None,
) -> Exported:
    """Export a network, run the file, and compare it with the network.

    Guarantee: what is returned runs in the backend's runtime on this machine, kept the
    limits on the first 64 inputs, and names no folder of this machine.

    Args:
        exporter: the backend.
        module: the trained network; is left as it was.
        inputs: model inputs, float32 or int64, shape (n, ...), n >= 1. They fix the
            ranges of int8, so they should be typical.
        precision: number format.
        limits: how far file and network may be apart; None takes `LIMITS`.

    Raises:
        ConfigError: the backend has no such precision, or is not installed.
        ValueError: the inputs are empty, not finite or of another dtype.
        CompressionError: the network cannot be exported, or the file is not like it.
    """
    check_precision(exporter, precision)
    _check_inputs(inputs)
    model = exporter.export(module, inputs, precision)
    check_anonymous(model)
    try:
        predictor = exporter.open(model, as_they_are(inputs))
    except (DataError, VerificationError) as exc:
        raise CompressionError(
            f"{exporter.name}: the runtime does not take the exported file: {exc}"
        ) from exc
    limits = LIMITS[precision] if limits is None else limits
    some = inputs[:_PARITY_EXAMPLES]
    try:
        return Exported(model, check_predictor(module, predictor, some, limits))
    except CompressionError as exc:
        raise CompressionError(f"{exporter.name} {precision}: {exc}") from exc


def check_precision(exporter: Exporter, precision: Precision) -> None:
    """Raise ConfigError unless the backend has this number format."""
    if precision not in exporter.precisions:
        raise ConfigError(
            f"precision: {exporter.name} has no {precision}; choose one of "
            f"{', '.join(exporter.precisions)}"
        )


def check_anonymous(model: bytes) -> None:
    """Raise unless a file is silent about the machine and the code it was made with.

    Raises:
        CompressionError: it holds a folder of this machine, or a stack trace.
    """
    folders = {Path.home(), Path.cwd(), Path(sys.prefix), Path(tempfile.gettempdir())}
    marks = {f"{folder}/" for folder in folders if len(str(folder)) > 1}
    marks |= {"/site-packages/", "Traceback (most recent", '.py", line '}
    for mark in sorted(marks):
        if len(mark) >= _SHORTEST_MARK and mark.encode() in model:
            raise CompressionError(
                f"export: the file holds {mark!r}, which tells of this machine; this "
                "is a fault of the exporter, please report it"
            )


def _check_inputs(inputs: AnyArray) -> None:
    if inputs.dtype.name not in ("float32", "int64"):
        raise ValueError(f"inputs: dtype {inputs.dtype}, need float32 or int64")
    if inputs.ndim < 2 or len(inputs) == 0:
        raise ValueError(f"inputs: shape {inputs.shape}, need (n, ...) with n >= 1")
    check_finite(inputs, "inputs")
