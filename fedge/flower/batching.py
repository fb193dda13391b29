"""Computing several clients of one worker together.

An app that can train K clients as one stacked computation says so:

    @together(app)
    def train_together(pairs): ...     # (message, context) of each client

It is called before the clients' handlers, and returns one of two things. `Stacked` is
all clients' replies at once: no handler runs, and a sum takes them in one operation. A
mapping by message id is what was computed for each client: its handler runs as ever,
mods and all, and asks `computed()` whether its work has been done. Clients that were
left out, and all of them on a real device, do it themselves; so the function is free to
return an empty mapping for what it cannot stack.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeAlias

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.arrays import AnyArray, Float64
from fedge.flower.entries import ARRAYS, METRICS
from fedge.flower.records import array_of, record_of


@dataclass(frozen=True, slots=True)
class Stacked:
    """The replies of all clients that were asked together, in their order.

    Attributes:
        arrays: by name, row k is client k's, shape (K, ...).
        metrics: by name, float64 (K,).
        array_key: name of the replies' array record.
        metric_key: name of the replies' metric record.
    """

    arrays: Mapping[str, AnyArray]
    metrics: Mapping[str, Float64]
    array_key: str = ARRAYS
    metric_key: str = METRICS

    def content(self, row: int) -> RecordDict:
        """Return one client's reply."""
        arrays = {name: array_of(rows[row]) for name, rows in self.arrays.items()}
        numbers = {name: float(values[row]) for name, values in self.metrics.items()}
        return RecordDict(
            {
                self.array_key: record_of(arrays),
                self.metric_key: MetricRecord(dict(numbers)),
            }
        )


Computed: TypeAlias = Mapping[str, object] | Stacked
Together: TypeAlias = Callable[[Sequence[tuple[Message, Context]]], Computed]

_ATTRIBUTE = "__fedge_together__"
_COMPUTED: ContextVar[object] = ContextVar("computed", default=None)


def together(app: ClientApp) -> Callable[[Together], Together]:
    """Return a decorator that makes a function the app's stacked computation."""

    def register(function: Together) -> Together:
        setattr(app, _ATTRIBUTE, function)
        return function

    return register


def together_of(app: ClientApp) -> Together | None:
    """Return the app's stacked computation, if it has one."""
    found: Together | None = getattr(app, _ATTRIBUTE, None)
    return found


def computed() -> object:
    """Return what was computed for the client whose handler runs; None if nothing."""
    return _COMPUTED.get()


@contextmanager
def computing(result: object) -> Iterator[None]:
    """Let `computed()` return this result in a block."""
    token = _COMPUTED.set(result)
    try:
        yield
    finally:
        _COMPUTED.reset(token)
