"""What a secure session adds up: which arrays, which coordinates, which metrics.

The plan is public, sent with every request, and its digest goes into the session id, so
all clients either follow the same plan or mask for different sessions.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from fedge.arrays import AnyArray, Bool, Float32, Float64
from fedge.errors import PeerError
from fedge.flower.records import array_of, read_array
from fedge.secagg.hashing import digest

_MAX_ARRAYS = 10_000
_MAX_COORDINATES = 2**31 - 1
_MAX_TEXT = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """One array of a client's reply.

    Attributes:
        name: its name in the reply.
        dtype: its number type, given back in the mean.
        shape: its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The layout of a cohort's sum.

    Attributes:
        arrays: of each reply, in the order of the coordinates.
        relative: whether what is summed is the change of the request's array of the
            same name (Flower's apps reply with whole models), or the array itself.
        mask_array: name of the request's packed pruning mask; only coordinates that it
            keeps are sent. Empty sends all.
        metrics: names of the metrics that are summed; others stay on the device.
        weight: name of the metric that is a reply's weight.
    """

    arrays: tuple[ArrayLayout, ...]
    relative: bool
    mask_array: str
    metrics: tuple[str, ...]
    weight: str

    def to_json(self) -> str:
        """Return the plan as canonical JSON."""
        plain = {
            "arrays": [[a.name, a.dtype, list(a.shape)] for a in self.arrays],
            "relative": self.relative,
            "mask": self.mask_array,
            "metrics": list(self.metrics),
            "weight": self.weight,
        }
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan.

        Raises:
            PeerError: not what `to_json` writes, or more than a message can hold.
        """
        if len(text) > _MAX_TEXT:
            raise PeerError(f"plan: {len(text)} characters, at most {_MAX_TEXT}")
        try:
            plain = json.loads(text)
            arrays = tuple(
                ArrayLayout(str(name), str(dtype), tuple(_side(s) for s in shape))
                for name, dtype, shape in plain["arrays"]
            )
            plan = cls(
                arrays,
                bool(plain["relative"]),
                str(plain["mask"]),
                tuple(str(name) for name in plain["metrics"]),
                str(plain["weight"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise PeerError("plan: malformed") from exc
        if plan.to_json() != text or not 1 <= len(arrays) <= _MAX_ARRAYS:
            raise PeerError("plan: malformed")
        if plan.num_values > _MAX_COORDINATES:
            raise PeerError(f"plan: {plan.num_values} coordinates are too many")
        return plan

    @property
    def num_values(self) -> int:
        """Values of all arrays together."""
        return sum(math.prod(array.shape) for array in self.arrays)

    def selection(self, request: RecordDict) -> Bool | None:
        """Return which coordinates are sent, shape (num_values,); None for all.

        Raises:
            PeerError: the request has no such mask, or it does not fit.
        """
        if not self.mask_array:
            return None
        record = _only_arrays(request, "request")
        if self.mask_array not in record:
            return None
        packed = read_array(record[self.mask_array])
        size = (self.num_values + 7) // 8
        if packed.dtype != np.uint8 or packed.shape != (size,):
            raise PeerError(
                f"mask: {packed.dtype} {packed.shape}, need uint8 ({size},)"
            )
        kept: Bool = np.unpackbits(packed, count=self.num_values).astype(np.bool_)
        return kept

    def read_reply(self, reply: RecordDict, request: RecordDict) -> Float32:
        """Return a reply's coordinates, all of them, float32.

        Raises:
            PeerError: the reply's arrays are not those of the plan.
        """
        record = _only_arrays(reply, "reply")
        names = [array.name for array in self.arrays]
        missing = [name for name in names if name not in record]
        if missing:
            raise PeerError(f"reply: array {missing[0]!r} is missing")
        parts = [self._read(array, record) for array in self.arrays]
        if self.relative:
            start = _only_arrays(request, "request")
            parts = [
                part - self._read(array, start)
                for part, array in zip(parts, self.arrays, strict=True)
            ]
        joined: Float32 = np.concatenate([p.reshape(-1) for p in parts]).astype(
            np.float32
        )
        return joined

    def _read(self, layout: ArrayLayout, record: ArrayRecord) -> AnyArray:
        values = read_array(record[layout.name])
        if values.shape != layout.shape:
            raise PeerError(
                f"array {layout.name!r}: shape {values.shape}, need {layout.shape}"
            )
        # The change of a float32 is rounded once, not twice.
        return values.astype(np.float64 if self.relative else np.float32)

    def write_mean(
        self, mean: Float64, selection: Bool | None, request: RecordDict
    ) -> ArrayRecord:
        """Return the mean as the arrays that a single reply would have had."""
        whole = mean
        if selection is not None:
            whole = np.zeros(self.num_values, np.float64)
            whole[selection] = mean
        start = _only_arrays(request, "request") if self.relative else ArrayRecord()
        arrays = ArrayRecord(dict(start)) if self.relative else ArrayRecord()
        at = 0
        for layout in self.arrays:
            part = whole[at : at + math.prod(layout.shape)].reshape(layout.shape)
            at += part.size
            if self.relative:
                part = part + read_array(start[layout.name])
            if np.dtype(layout.dtype).kind in "iu":
                part = np.rint(part)
            arrays[layout.name] = array_of(np.asarray(part, np.dtype(layout.dtype)))
        return arrays


def plan_for(
    request: RecordDict, *, frozen: Sequence[str], metrics: Sequence[str], weight: str
) -> Plan:
    """Return the plan of a Flower app that replies with its whole model.

    Args:
        request: a training message's content, with one array record.
        frozen: arrays that clients do not train: they are not sent back.
        metrics: metrics to sum.
        weight: name of the weight.

    Raises:
        PeerError: the request has not exactly one array record.
    """
    record = _only_arrays(request, "request")
    arrays = tuple(
        ArrayLayout(name, array.dtype, tuple(array.shape))
        for name, array in record.items()
        if name not in frozen
    )
    return Plan(arrays, True, "", tuple(metrics), weight)


def model_digest(request: RecordDict) -> bytes:
    """Return the hash of all arrays that a client was sent, 32 bytes."""
    parts = []
    for key, record in sorted(request.array_records.items()):
        for name, array in record.items():
            described = [key, name, array.dtype, array.stype, list(array.shape)]
            head = json.dumps(described)
            parts += [head.encode(), hashlib.sha256(array.data).digest()]
    return digest("model", *parts)


def config_digest(request: RecordDict, plan: str) -> bytes:
    """Return the hash of all instructions that a client was sent, 32 bytes.

    Args:
        request: the content without the session's own record.
        plan: see `Plan.to_json`.
    """
    parts = [plan.encode()]
    for key, record in sorted(request.items()):
        if isinstance(record, ArrayRecord):
            continue  # they are in the model's digest
        for name, value in sorted(record.items()):
            kind = type(record).__name__
            parts += [part.encode() for part in (kind, key, name, repr(value))]
    return digest("config", *parts)


def _only_arrays(content: RecordDict, what: str) -> ArrayRecord:
    records = list(content.array_records.values())
    if len(records) != 1:
        raise PeerError(f"{what}: {len(records)} array records, need one")
    return records[0]


def _side(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a shape has whole sides")
    return value
