"""Calibration messages: a graph goes out, one range per tensor comes back.

The message is a training message to all layers (`train.calibrate`), so what protects
updates protects ranges: a device that trains under secure aggregation only refuses to
send its ranges openly, and `SecureSum` adds them up under masks.
"""

from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedge.arrays import Float32
from fedge.errors import PeerError
from fedge.flower.entries import (
    ARRAYS,
    CONFIG,
    METRICS,
    NUM_EXAMPLES,
    arrays_of,
    config_of,
    metrics_of,
    read_entry,
    read_not_negative,
    read_num_examples,
)
from fedge.flower.records import array_of, read_array, record_of
from fedge.flower.secure_plan import ArrayLayout, Plan
from fedge.flower.wire import task_of
from fedge.runtime.model_check import MAX_MODEL_BYTES

CALIBRATE = "train.calibrate"
MAX_EXAMPLES = 65_536
MAX_TENSORS = 65_536
_GRAPH, _RANGES = "graph", "ranges"


@dataclass(frozen=True, slots=True)
class CalibrateRequest:
    """Run this graph on some of your data, and say what ranges you saw.

    Attributes:
        graph: an ONNX file (`fedge.compress.observe`); nothing in it is trusted.
        task: whose data (JSON of a `ClientTask`).
        num_tensors: tensors that it observes.
        num_examples: examples to run at most, >= 1.
        scale: what the places of `fedge.runtime.ranges.encode` are multiplied by, in
            (0, 1]: the largest number that a masked sum carries.
    """

    graph: bytes
    task: str
    num_tensors: int
    num_examples: int
    scale: float

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        config = ConfigRecord(
            {
                "task": self.task,
                "num-tensors": self.num_tensors,
                "num-examples": self.num_examples,
                "scale": self.scale,
            }
        )
        graph = array_of(np.frombuffer(self.graph, np.uint8))
        return RecordDict({ARRAYS: record_of({_GRAPH: graph}), CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict) -> "CalibrateRequest":
        """Read the request; raise PeerError if it is malformed or asks too much."""
        config, arrays = config_of(content), arrays_of(content)
        if _GRAPH not in arrays:
            raise PeerError(f"array {_GRAPH!r} is missing")
        graph = read_array(arrays[_GRAPH])
        if graph.dtype != np.uint8 or graph.ndim != 1 or graph.size > MAX_MODEL_BYTES:
            raise PeerError(
                f"array {_GRAPH!r}: {graph.dtype} {graph.shape}, need at most "
                f"{MAX_MODEL_BYTES} bytes"
            )
        request = cls(
            graph=graph.tobytes(),
            task=task_of(content),
            num_tensors=read_not_negative(config, "num-tensors", int),
            num_examples=read_not_negative(config, "num-examples", int),
            scale=read_entry(config, "scale", float),
        )
        for name, value, most in (
            ("num-tensors", request.num_tensors, MAX_TENSORS),
            ("num-examples", request.num_examples, MAX_EXAMPLES),
        ):
            if not 1 <= value <= most:
                raise PeerError(f"message: {name} {value} not in [1, {most}]")
        if not 0.0 < request.scale <= 1.0:
            raise PeerError(f"message: scale {request.scale:.6g} not in (0, 1]")
        return request


@dataclass(frozen=True, slots=True)
class CalibrateReply:
    """What ranges a device saw; or a cohort's mean, in a synthetic reply.

    Attributes:
        places: see `fedge.runtime.ranges.encode`, float32, shape (2, k), in [-1, 1]
            times the request's scale; least values, then largest ones.
        num_examples: examples they were seen on: the weight in a mean.
    """

    places: Float32
    num_examples: float

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        arrays = record_of({_RANGES: array_of(self.places)})
        metrics = MetricRecord({NUM_EXAMPLES: self.num_examples})
        return RecordDict({ARRAYS: arrays, METRICS: metrics})

    @classmethod
    def from_content(
        cls, content: RecordDict, *, num_tensors: int, scale: float
    ) -> "CalibrateReply":
        """Read a reply.

        Raises:
            PeerError: an entry is missing or of a wrong type or shape, a bound is not
                finite or too large, or there are other arrays.
        """
        arrays = arrays_of(content)
        if list(arrays) != [_RANGES]:
            raise PeerError(f"reply: need the array {_RANGES!r} and no other")
        places = read_array(arrays[_RANGES])
        if places.dtype != np.float32 or places.shape != (2, num_tensors):
            raise PeerError(
                f"array {_RANGES!r}: {places.dtype} {places.shape}, need float32 "
                f"(2, {num_tensors})"
            )
        most = scale * _ROUNDED
        # A NaN fails every comparison.
        if not (np.abs(places) <= most).all():
            raise PeerError(
                f"array {_RANGES!r}: a bound is not finite, or not in [-{scale:g}, "
                f"{scale:g}]"
            )
        return cls(places, read_num_examples(metrics_of(content)))

    def check_order(self) -> None:
        """Raise PeerError if a range is inverted, as no single device's can be.

        In a masked sum each bound was rounded at random, so that those of a narrow
        range may have changed places.
        """
        inverted = self.places[0] > self.places[1]
        if inverted.any():
            raise PeerError(f"reply: range {int(np.argmax(inverted))} is inverted")


_ROUNDED = 1.0 + 1e-6  # a product in float32


def secure_ranges_plan(num_tensors: int) -> Plan:
    """Return how ranges are summed under masks: their weighted mean, nothing else."""
    return Plan(
        arrays=(ArrayLayout(_RANGES, "float32", (2, num_tensors)),),
        relative=False,
        mask_array="",
        metrics=(),
        weight=NUM_EXAMPLES,
    )
