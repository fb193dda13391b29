"""The messages between our coordinator and our devices, as values.

Each class becomes a Flower record and is read back strictly: whoever reads treats the
other side as untrusted. Names of entries follow Flower's spelling ("num-examples").
"""

import json
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedge.arrays import Float32, Float64, UInt8
from fedge.config.compression import TRAINABLE
from fedge.config.experiment import MAX_JSON_BYTES
from fedge.errors import PeerError
from fedge.flower.batching import Stacked
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
from fedge.flower.graph_records import PackedGraph, graph_in
from fedge.flower.plain_total import Layout
from fedge.flower.records import (
    MAX_REASON_LENGTH,
    array_of,
    read_array,
    read_vector,
    record_of,
)
from fedge.flower.secure_plan import ArrayLayout, Plan
from fedge.strategy import LocalSettings, Scalar

TRAIN = "train"
EVALUATE = "evaluate"
EVALUATE_RELEASE = "evaluate.release"
DESCRIBE = "query.describe"
RELEASE = "query.release"

TRAIN_LOSS = "train_loss"

OUTCOMES = ("installed", "already_installed", "rolled_back")


def task_of(content: RecordDict) -> str:
    """Return a request's task (JSON text, see `ClientTask`), before anything else.

    Raises:
        PeerError: there is none.
    """
    return read_entry(config_of(content), "task", str)


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """Train on your data, from this model.

    Attributes:
        params: global model, buffers included, float32, shape (d,).
        packed_mask: which trainable coordinates are kept, eight in a byte; None keeps
            all.
        task: what to train and how (JSON of a `ClientTask`).
        spec_digest: digest of the `ModelSpec` that `params` is laid out by.
        round_index: the round, from 0.
        learning_rate: of this round.
        local: what the strategy asks for.
        weight_form: form that weights are rounded to in every step; "" for none.
        graph: one training step of the model, for devices without PyTorch.
    """

    params: Float32
    packed_mask: UInt8 | None
    task: str
    spec_digest: str
    round_index: int
    learning_rate: float
    local: LocalSettings
    weight_form: str = ""
    graph: PackedGraph | None = None

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        arrays = record_of({"params": array_of(self.params)})
        if self.packed_mask is not None:
            arrays["mask"] = array_of(self.packed_mask)
        config = ConfigRecord(
            {
                "task": self.task,
                "spec": self.spec_digest,
                "round": self.round_index,
                "learning-rate": self.learning_rate,
                "proximal-mu": self.local.proximal_mu,
                "extra": json.dumps(dict(self.local.extra)),
                "weight-form": self.weight_form,
            }
        )
        if self.graph is not None:
            self.graph.add_to(arrays, config)
        return RecordDict({ARRAYS: arrays, CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict, *, size: int) -> "TrainRequest":
        """Read the request.

        Args:
            content: the message's content.
            size: coordinates that `params` must have.

        Raises:
            PeerError: an entry is missing, of a wrong type, shape or size.
        """
        arrays, config = arrays_of(content), config_of(content)
        local = LocalSettings(
            proximal_mu=read_not_negative(config, "proximal-mu", float),
            extra=_read_extra(read_entry(config, "extra", str)),
        )
        return cls(
            params=read_vector(arrays, "params", size),
            packed_mask=_read_mask(arrays),
            task=task_of(content),
            spec_digest=read_entry(config, "spec", str),
            round_index=read_not_negative(config, "round", int),
            learning_rate=read_not_negative(config, "learning-rate", float),
            local=local,
            weight_form=_read_form(config),
            graph=graph_in(content),
        )


def _read_form(config: ConfigRecord) -> str:
    form = read_entry(config, "weight-form", str)
    if form not in ("", *TRAINABLE):
        raise PeerError(f"message: 'weight-form' is {form[:20]!r}, not {TRAINABLE}")
    return form


def _read_mask(arrays: ArrayRecord) -> UInt8 | None:
    if "mask" not in arrays:
        return None
    mask = read_array(arrays["mask"])
    if mask.dtype != "uint8" or mask.ndim != 1:
        raise PeerError(f"array 'mask': {mask.dtype} {mask.shape}, need uint8 bytes")
    return mask


def _read_extra(text: str) -> dict[str, Scalar]:
    if len(text) > MAX_JSON_BYTES:
        raise PeerError(f"message: 'extra' has {len(text)} bytes, at most 65536")
    try:
        extra = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise PeerError("message: 'extra' is not JSON") from exc
    if not isinstance(extra, dict) or not all(
        isinstance(value, bool | int | float | str) for value in extra.values()
    ):
        raise PeerError("message: 'extra' is not a mapping of scalars")
    return extra


@dataclass(frozen=True, slots=True)
class TrainReply:
    """What a device learned.

    Attributes:
        delta: local - global, buffers included, float32, shape (d,).
        num_examples: examples it was learned from: the weight of this update.
        loss: mean training loss.
    """

    delta: Float32
    num_examples: float
    loss: float

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        metrics = MetricRecord({NUM_EXAMPLES: self.num_examples, TRAIN_LOSS: self.loss})
        arrays = record_of({"delta": array_of(self.delta)})
        return RecordDict({ARRAYS: arrays, METRICS: metrics})

    @classmethod
    def from_content(cls, content: RecordDict, *, size: int) -> "TrainReply":
        """Read a device's reply, or a cohort's synthetic one.

        Raises:
            PeerError: an entry is missing, of a wrong type, shape or size, or not
                finite, or the number of examples is not in (0, 2^30).
        """
        metrics = metrics_of(content)
        return cls(
            delta=read_vector(arrays_of(content), "delta", size),
            num_examples=read_num_examples(metrics),
            loss=read_entry(metrics, TRAIN_LOSS, float),
        )


def train_reply_layout(size: int) -> Layout:
    """Return what a device's training reply consists of, and nothing more.

    Args:
        size: coordinates of an update.
    """
    return Layout(ARRAYS, METRICS, (("delta", "float32", (size,)),), (TRAIN_LOSS,))


def stacked_replies(deltas: Float32, num_examples: Float64, losses: Float64) -> Stacked:
    """Return the training replies of several clients at once.

    Args:
        deltas: of each client, float32, shape (K, d).
        num_examples: float64, shape (K,).
        losses: mean training losses, float64, shape (K,).
    """
    metrics = {NUM_EXAMPLES: num_examples, TRAIN_LOSS: losses}
    return Stacked({"delta": deltas}, metrics)


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """Evaluate this model on your data.

    Attributes:
        params: global model, float32, shape (d,).
        task: the data and the model (JSON of a `ClientTask`).
        spec_digest: digest of the `ModelSpec` that `params` is laid out by.
        graph: the model's outputs, for devices without PyTorch.
    """

    params: Float32
    task: str
    spec_digest: str
    graph: PackedGraph | None = None

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        config = ConfigRecord({"task": self.task, "spec": self.spec_digest})
        arrays = record_of({"params": array_of(self.params)})
        if self.graph is not None:
            self.graph.add_to(arrays, config)
        return RecordDict({ARRAYS: arrays, CONFIG: config})

    @classmethod
    def from_content(cls, content: RecordDict, *, size: int) -> "EvaluateRequest":
        """Read the request; raise PeerError if it is malformed."""
        return cls(
            params=read_vector(arrays_of(content), "params", size),
            task=task_of(content),
            spec_digest=read_entry(config_of(content), "spec", str),
            graph=graph_in(content),
        )


@dataclass(frozen=True, slots=True)
class EvaluateReply:
    """How well a model does on a device's own data.

    Attributes:
        loss: mean loss.
        score: accuracy, or R^2 for regression.
        num_examples: examples it was measured on.
        latency_ms: median time of one example in the device's runtime; 0 if the model
            was evaluated by the trainer.
        version: installed release that was evaluated; 0 for a model that was sent.
    """

    loss: float
    score: float
    num_examples: float
    latency_ms: float = 0.0
    version: int = 0

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        metrics = MetricRecord(
            {
                NUM_EXAMPLES: self.num_examples,
                "loss": self.loss,
                "score": self.score,
                "latency-ms": self.latency_ms,
                "version": self.version,
            }
        )
        return RecordDict({METRICS: metrics})

    @classmethod
    def from_content(cls, content: RecordDict) -> "EvaluateReply":
        """Read the reply; raise PeerError if it is malformed."""
        metrics = metrics_of(content)
        reply = cls(
            loss=read_entry(metrics, "loss", float),
            score=read_entry(metrics, "score", float),
            num_examples=read_num_examples(metrics),
            latency_ms=read_not_negative(metrics, "latency-ms", float),
            version=read_not_negative(metrics, "version", int),
        )
        if reply.score > 1.0:
            raise PeerError(f"reply: score {reply.score:.6g} is more than 1")
        return reply


@dataclass(frozen=True, slots=True)
class Description:
    """What a device says of itself.

    Attributes:
        partition_id: its place in the fleet: which part of simulated data is its own.
        version: release it runs; 0 for none.
    """

    partition_id: int
    version: int

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        config = {"partition-id": self.partition_id, "version": self.version}
        return RecordDict({CONFIG: ConfigRecord(dict(config))})

    @classmethod
    def from_content(cls, content: RecordDict) -> "Description":
        """Read the reply; raise PeerError if it is malformed."""
        config = config_of(content)
        return cls(
            partition_id=read_not_negative(config, "partition-id", int),
            version=read_not_negative(config, "version", int),
        )


@dataclass(frozen=True, slots=True)
class ReleaseReply:
    """What became of a pushed release on a device.

    Attributes:
        version: the release the device runs now; 0 for none.
        outcome: "installed", "already_installed" or "rolled_back".
        reason: why it was rolled back; empty otherwise.
    """

    version: int
    outcome: str
    reason: str = ""

    def to_content(self) -> RecordDict:
        """Return the message's content."""
        config: dict[str, int | str] = {
            "version": self.version,
            "outcome": self.outcome,
            "reason": self.reason,
        }
        return RecordDict({CONFIG: ConfigRecord(dict(config))})

    @classmethod
    def from_content(cls, content: RecordDict) -> "ReleaseReply":
        """Read the reply; raise PeerError if it is malformed."""
        config = config_of(content)
        outcome = read_entry(config, "outcome", str)
        if outcome not in OUTCOMES:
            raise PeerError(f"reply: outcome {outcome[:40]!r} is none of {OUTCOMES}")
        return cls(
            version=read_not_negative(config, "version", int),
            outcome=outcome,
            reason=read_entry(config, "reason", str)[:MAX_REASON_LENGTH],
        )


def secure_plan(size: int) -> Plan:
    """Return how training replies are summed under masks.

    Args:
        size: coordinates of an update; those that the request's pruning mask drops are
            neither masked nor sent.
    """
    return Plan(
        arrays=(ArrayLayout("delta", "float32", (size,)),),
        relative=False,
        mask_array="mask",
        metrics=(TRAIN_LOSS,),
        weight=NUM_EXAMPLES,
    )
