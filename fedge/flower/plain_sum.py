"""PlainSum: a cohort's training replies become one, in constant memory.

The synthetic reply holds the weighted mean of the arrays, the total weight under the
weight's own key, and the weighted means of the other metrics, so Flower's mean-based
strategies accept it unchanged. It has the shape of secure aggregation without masks.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

import numpy as np
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedge.aggregation import ExactSum
from fedge.arrays import AnyArray
from fedge.errors import PeerError
from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.records import array_of, read_array

logger = logging.getLogger(__name__)

NUM_CLIENTS = "num-clients"


class PlainSum(GridLayer):
    """Sums training replies; other messages pass through.

    Guarantee: the mean does not depend on the order in which replies arrive, and memory
    is that of one model whatever the cohort's size.

    Attributes:
        enough: stop waiting after so many good replies (over-sampling); 0 takes all.
        weighted_by_key: the metric that is a reply's weight.
        check: raises PeerError for a reply that must not be added; without it the
            first good reply decides which arrays and metrics all others must have.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        enough: int = 0,
        weighted_by_key: str = "num-examples",
        check: Callable[[RecordDict], None] | None = None,
    ) -> None:
        super().__init__(inner)
        self.check = check
        self.enough = enough
        self.weighted_by_key = weighted_by_key

    def stream(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield failures as they arrive and the one synthetic reply at the end."""
        sent = list(messages)
        if not sent or not sent[0].metadata.message_type.startswith("train"):
            yield from stream_replies(self.inner, sent, timeout=timeout)
            return
        total = _Total(self.weighted_by_key)
        for reply in stream_replies(self.inner, sent, timeout=timeout):
            if reply.has_error():
                yield reply
                continue
            try:
                if self.check is not None:
                    self.check(reply.content)
                total.add(reply.content)
            except PeerError as exc:
                logger.warning("node %d left out: %s", reply.metadata.src_node_id, exc)
                error = Error(ErrorCode.MOD_FAILED_PRECONDITION, str(exc))
                yield make_message(reply.metadata, error=error)
            if total.num_clients == self.enough > 0:
                break
        if total.num_clients:
            yield Message(total.content(), reply_to=sent[0])


class _Total:
    """The running sum of one cohort."""

    def __init__(self, weighted_by_key: str) -> None:
        self._weight_key = weighted_by_key
        self._arrays: ExactSum | None = None
        self._layout: list[tuple[str, np.dtype[np.generic], tuple[int, ...]]] = []
        self._metrics: dict[str, Fraction] = {}
        self._record_names = ("", "")

    @property
    def num_clients(self) -> int:
        return self._arrays.num_terms if self._arrays else 0

    def add(self, content: RecordDict) -> None:
        """Add one reply; raise PeerError and change nothing if it does not fit."""
        if len(content.array_records) != 1 or len(content.metric_records) != 1:
            raise PeerError(
                f"reply: {len(content.array_records)} array and "
                f"{len(content.metric_records)} metric records, need one of each"
            )
        (array_key, record), (metric_key, metrics) = (
            next(iter(content.array_records.items())),
            next(iter(content.metric_records.items())),
        )
        weight, values = self._read_metrics(metrics)
        arrays = {name: read_array(array) for name, array in record.items()}
        layout = [(name, a.dtype, a.shape) for name, a in arrays.items()]
        vector = _concatenate(list(arrays.values()))
        if self._arrays is None:
            first = ExactSum(vector.size)
            first.add(vector, weight)
            self._arrays, self._layout = first, layout
            self._metrics = dict.fromkeys(values, Fraction(0))
            self._record_names = (array_key, metric_key)
        elif layout != self._layout or values.keys() != self._metrics.keys():
            raise PeerError("reply: other arrays or metrics than the first one's")
        else:
            self._arrays.add(vector, weight)
        for name, value in values.items():
            self._metrics[name] += Fraction(value) * Fraction(weight)

    def content(self) -> RecordDict:
        """Return the synthetic reply's content."""
        if self._arrays is None:
            raise ValueError("nothing was added")
        mean, arrays, start = self._arrays.mean(), ArrayRecord(), 0
        for name, dtype, shape in self._layout:
            part = mean[start : start + int(np.prod(shape))].reshape(shape)
            start += part.size
            whole = np.issubdtype(dtype, np.integer)
            arrays[name] = array_of((np.rint(part) if whole else part).astype(dtype))
        weight_sum = self._arrays.weight_sum
        metrics = MetricRecord(
            {
                name: float(total / Fraction(weight_sum))
                for name, total in self._metrics.items()
            }
        )
        metrics[self._weight_key] = weight_sum
        metrics[NUM_CLIENTS] = self.num_clients
        array_key, metric_key = self._record_names
        return RecordDict({array_key: arrays, metric_key: metrics})

    def _read_metrics(self, metrics: MetricRecord) -> tuple[float, dict[str, float]]:
        try:
            numbers = {
                name: float(value)
                for name, value in sorted(metrics.items())
                if isinstance(value, int | float)
            }
        except OverflowError as exc:
            raise PeerError("reply: a metric is too large for a float") from exc
        if self._weight_key not in numbers:
            raise PeerError(f"reply: no number under the metric {self._weight_key!r}")
        if not np.isfinite(list(numbers.values())).all():
            raise PeerError("reply: a metric is not finite")
        return numbers.pop(self._weight_key), numbers


def _concatenate(arrays: list[AnyArray]) -> AnyArray:
    # Whole numbers as floats: of the least int64 there is no absolute value.
    arrays = [a if a.dtype.kind == "f" else a.astype(np.float64) for a in arrays]
    if len(arrays) == 1:
        return arrays[0].reshape(-1)
    return np.concatenate([array.reshape(-1) for array in arrays] or [np.zeros(0)])
