"""Reading a message's entries strictly: what the other side wrote is not trusted.

Every function raises PeerError, naming the entry, if it is missing or malformed.
"""

import math
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedge.errors import PeerError

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
NUM_EXAMPLES = "num-examples"

_MAX_EXAMPLES = 2.0**30  # what an exact sum can hold
_MAX_COUNT = 2**62

T = TypeVar("T", bool, int, float, str)
N = TypeVar("N", int, float)


def read_entry(record: ConfigRecord | MetricRecord, name: str, kind: type[T]) -> T:
    """Return a finite entry of exactly this type; whole numbers pass as floats."""
    value = record.get(name)
    if type(value) is int and abs(value) > _MAX_COUNT:
        raise PeerError(f"message: entry {name!r}: not in [-2^62, 2^62]")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise PeerError(f"message: entry {name!r} is no {kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise PeerError(f"message: entry {name!r}: {value} is not finite")
    return value


def read_not_negative(
    record: ConfigRecord | MetricRecord, name: str, kind: type[N]
) -> N:
    """Return a number of exactly this type that is not negative."""
    value = read_entry(record, name, kind)
    if value < 0:
        raise PeerError(f"message: entry {name!r}: {value:.6g} is negative")
    return value


def read_num_examples(metrics: MetricRecord) -> float:
    """Return a weight that an exact sum can hold."""
    value = read_entry(metrics, NUM_EXAMPLES, float)
    if not 0.0 < value < _MAX_EXAMPLES:
        raise PeerError(f"reply: {NUM_EXAMPLES} {value:.6g} not in (0, 2^30)")
    return value


def config_of(content: RecordDict) -> ConfigRecord:
    """Return the record of settings."""
    record = content.get(CONFIG)
    if not isinstance(record, ConfigRecord):
        raise PeerError(f"message: config record {CONFIG!r} is missing")
    return record


def metrics_of(content: RecordDict) -> MetricRecord:
    """Return the record of metrics."""
    record = content.get(METRICS)
    if not isinstance(record, MetricRecord):
        raise PeerError(f"message: metric record {METRICS!r} is missing")
    return record


def arrays_of(content: RecordDict) -> ArrayRecord:
    """Return the record of arrays."""
    record = content.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise PeerError(f"message: array record {ARRAYS!r} is missing")
    return record
