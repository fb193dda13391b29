"""The running sum of a cohort's replies, here or in a worker.

Replies are added by layout: names, types and shapes of their arrays and names of their
metrics. Unless the caller knows the layout, the one that most replies share is the
cohort's, so that a single odd reply cannot decide, whenever it arrives.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedge.aggregation import ExactSum
from fedge.arrays import AnyArray, Float64
from fedge.errors import PeerError
from fedge.flower.batching import Stacked
from fedge.flower.records import array_of, read_array, record_of

NUM_CLIENTS = "num-clients"
_UNITS, _NUMBERS, _DROPPED = "units", "numbers", "dropped"
_MAX_LAYOUTS = 8  # each costs memory for one model


@dataclass(frozen=True, slots=True)
class Layout:
    """What a reply consists of.

    Attributes:
        array_key, metric_key: names of its two records.
        arrays: name, dtype and shape of each array, in order.
        metrics: names of the metrics besides the weight, sorted.
    """

    array_key: str
    metric_key: str
    arrays: tuple[tuple[str, str, tuple[int, ...]], ...]
    metrics: tuple[str, ...]

    def to_json(self) -> str:
        """Return the layout as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Layout":
        """Return the layout that `to_json` wrote."""
        plain = json.loads(text)
        arrays = ((name, dtype, tuple(shape)) for name, dtype, shape in plain["arrays"])
        return cls(
            plain["array_key"],
            plain["metric_key"],
            tuple(arrays),
            tuple(plain["metrics"]),
        )


@dataclass(frozen=True, slots=True)
class PlainReduction:
    """Add training replies up in the clear (see `fedge.flower.partial.Reduction`).

    Attributes:
        weight_key: the metric that is a reply's weight.
        expect: the only layout that is added; None: the one that most replies share.
        enough: replies that are wanted; 0 for all.
    """

    weight_key: str = "num-examples"
    expect: Layout | None = None
    enough: int = 0

    @property
    def kind(self) -> str:
        """Its name."""
        return "plain"

    def to_json(self) -> str:
        """Return its settings as JSON."""
        expect = self.expect.to_json() if self.expect else None
        return json.dumps([self.weight_key, expect, self.enough])

    @classmethod
    def from_json(cls, text: str) -> "PlainReduction":
        """Return the reduction that `to_json` wrote."""
        weight_key, expect, enough = json.loads(text)
        return cls(weight_key, Layout.from_json(expect) if expect else None, enough)

    def start(self) -> "PlainTotal":
        """Return an empty sum."""
        return PlainTotal(self)


class PlainTotal:
    """Sums of a cohort's replies, one for each layout.

    Guarantee: neither the order of the replies nor their grouping into partial sums
    changes a bit of the result.
    """

    def __init__(self, settings: PlainReduction) -> None:
        self._settings = settings
        self._sums: dict[Layout, _Sum] = {}
        self._seen: set[int] = set()
        self._dropped: list[int] = []

    @property
    def num_clients(self) -> int:
        """Replies of the layout that most of them share."""
        return max((len(one.nodes) for one in self._sums.values()), default=0)

    def add(self, reply: Message) -> None:
        """Add one reply; raise PeerError and change nothing if it does not fit."""
        node = reply.metadata.src_node_id
        self._check_new([node])
        layout, weight, vector, values = _read(reply.content, self._settings.weight_key)
        expect = self._settings.expect
        if expect is not None and layout != expect:
            raise PeerError("reply: other arrays or metrics than were asked for")
        one = self._sum_of(layout)
        one.add(node, vector, weight, values)
        self._keep(layout, one, [node])

    def add_stacked(self, nodes: Sequence[int], replies: Stacked) -> None:
        """Add the replies of several clients at once.

        Guarantee: the same as adding them one by one.

        Raises:
            PeerError: one of them must not be added; nothing was.
        """
        self._check_new(nodes)
        layout = _layout_of_stacked(replies, self._settings.weight_key)
        if self._settings.expect not in (None, layout):
            raise PeerError("reply: other arrays or metrics than were asked for")
        values = {name: replies.metrics[name] for name in layout.metrics}
        weights = replies.metrics[self._settings.weight_key]
        if not all(np.isfinite(column).all() for column in values.values()):
            raise PeerError("reply: a metric is not finite")
        matrix = np.concatenate(
            [rows.reshape(len(nodes), -1) for rows in replies.arrays.values()], axis=1
        )
        one = self._sum_of(layout)
        one.add_many(nodes, matrix, weights, values)
        self._keep(layout, one, nodes)

    def contents(self) -> list[tuple[list[int], RecordDict]]:
        """Return the sums as nodes and partial sum, one for each layout."""
        sums = [
            (one.nodes, one.to_content(layout)) for layout, one in self._sums.items()
        ]
        if sums:  # told with one of them
            sums[0][1].config_records[_NUMBERS][_DROPPED] = list(self._dropped)
        return sums

    def merge(self, content: RecordDict, nodes: Sequence[int]) -> None:
        """Add a partial sum; raise PeerError and change nothing if it does not fit.

        Args:
            content: the sum; it must not change any more.
            nodes: who is in it.
        """
        numbers = content.config_records[_NUMBERS]
        layout = Layout.from_json(str(numbers["layout"]))
        self._check_new(nodes)
        one = self._sum_of(layout)
        one.merge(_Sum.from_content(content, layout, nodes))
        self._keep(layout, one, nodes)
        self._dropped += numbers.get(_DROPPED, [])  # type: ignore[arg-type]  # a list

    def close(self) -> tuple[RecordDict | None, list[int]]:
        """Return the synthetic reply's content, and the nodes that are not in it."""
        if not self._sums:
            return None, []
        # Of two equally frequent layouts: the one of the smallest node.
        most = max(self._sums.values(), key=lambda s: (len(s.nodes), -min(s.nodes)))
        others = [s.nodes for s in self._sums.values() if s is not most]
        odd = [*self._dropped, *(node for nodes in others for node in nodes)]
        (layout,) = (key for key, value in self._sums.items() if value is most)
        return most.mean(layout, self._settings.weight_key), sorted(odd)

    def _keep(self, layout: Layout, one: "_Sum", nodes: Sequence[int]) -> None:
        """Keep a sum after these nodes' replies were added to it."""
        if layout not in self._sums and len(self._sums) == _MAX_LAYOUTS:
            self._drop_rarest()
        self._sums[layout] = one
        self._seen.update(nodes)

    def _drop_rarest(self) -> None:
        """Make room for another layout; the oldest of equally rare ones goes."""
        layout = min(self._sums, key=lambda key: len(self._sums[key].nodes))
        self._dropped += self._sums.pop(layout).nodes

    def _check_new(self, nodes: Sequence[int]) -> None:
        if not self._seen.isdisjoint(nodes):
            raise PeerError("reply: this node's reply was added already")

    def _sum_of(self, layout: Layout) -> "_Sum":
        """Return this layout's sum; a new one is kept once something was added."""
        found = self._sums.get(layout)
        if found is not None:
            return found
        return _Sum(sum(_size(shape) for _, _, shape in layout.arrays), layout.metrics)


class _Sum:
    """The sum over replies of one layout."""

    def __init__(self, size: int, metrics: Sequence[str]) -> None:
        self._arrays = ExactSum(size)
        self._metrics = dict.fromkeys(metrics, Fraction(0))
        self.nodes: list[int] = []

    def add(
        self, node: int, vector: AnyArray, weight: float, values: Mapping[str, float]
    ) -> None:
        self._arrays.add(vector, weight)
        for name, value in values.items():
            self._metrics[name] += Fraction(value) * Fraction(weight)
        self.nodes.append(node)

    def add_many(
        self,
        nodes: Sequence[int],
        matrix: AnyArray,
        weights: Float64,
        values: Mapping[str, Float64],
    ) -> None:
        self._arrays.add_many(matrix, weights)
        for name, column in values.items():
            pairs = zip(column.tolist(), weights.tolist(), strict=True)
            self._metrics[name] += sum(Fraction(v) * Fraction(w) for v, w in pairs)
        self.nodes += nodes

    def merge(self, other: "_Sum") -> None:
        self._arrays.merge(other._arrays)
        for name, value in other._metrics.items():
            self._metrics[name] += value
        self.nodes += other.nodes

    def to_content(self, layout: Layout) -> RecordDict:
        units, numbers = self._arrays.parts()
        metrics = [str(value) for value in self._metrics.values()]
        entries = {"layout": layout.to_json(), "metrics": metrics, **numbers}
        return RecordDict(
            {
                _UNITS: record_of({_UNITS: array_of(units)}),
                _NUMBERS: ConfigRecord(entries),  # type: ignore[arg-type]  # mixed
            }
        )

    @classmethod
    def from_content(
        cls, content: RecordDict, layout: Layout, nodes: Sequence[int]
    ) -> "_Sum":
        numbers = dict(content.config_records[_NUMBERS])
        result = cls(0, layout.metrics)
        units = read_array(content.array_records[_UNITS][_UNITS])
        result._arrays = ExactSum.from_parts(units, numbers)  # type: ignore[arg-type]
        texts: list[str] = numbers["metrics"]  # type: ignore[assignment]
        for name, text in zip(layout.metrics, texts, strict=True):
            result._metrics[name] = Fraction(text)
        result.nodes = list(nodes)
        return result

    def mean(self, layout: Layout, weight_key: str) -> RecordDict:
        is_float32 = all(dtype == "float32" for _, dtype, _ in layout.arrays)
        sums = self._arrays
        mean = sums.mean_float32() if is_float32 else sums.mean()
        arrays, start = ArrayRecord(), 0
        for name, text, shape in layout.arrays:
            part, dtype = (
                mean[start : start + _size(shape)].reshape(shape),
                np.dtype(text),
            )
            start += part.size
            whole = np.issubdtype(dtype, np.integer)
            rounded = np.rint(part) if whole else part
            arrays[name] = array_of(rounded.astype(dtype, copy=False))
        weight_sum = self._arrays.weight_sum
        metrics = MetricRecord(
            {
                name: float(total / sums.exact_weight_sum)
                for name, total in self._metrics.items()
            }
        )
        metrics[weight_key] = weight_sum
        metrics[NUM_CLIENTS] = self._arrays.num_terms
        return RecordDict({layout.array_key: arrays, layout.metric_key: metrics})


def _read(
    content: RecordDict, weight_key: str
) -> tuple[Layout, float, AnyArray, dict[str, float]]:
    """Return a reply's layout, weight, values as one vector, and metrics."""
    if len(content.array_records) != 1 or len(content.metric_records) != 1:
        raise PeerError(
            f"reply: {len(content.array_records)} array and "
            f"{len(content.metric_records)} metric records, need one of each"
        )
    ((array_key, record),) = content.array_records.items()
    ((metric_key, metrics),) = content.metric_records.items()
    weight, values = _read_metrics(metrics, weight_key)
    arrays = {name: read_array(array) for name, array in record.items()}
    layout = Layout(
        array_key,
        metric_key,
        tuple((name, str(a.dtype), a.shape) for name, a in arrays.items()),
        tuple(values),
    )
    return layout, weight, _concatenate(list(arrays.values())), values


def _layout_of_stacked(replies: Stacked, weight_key: str) -> Layout:
    if weight_key not in replies.metrics:
        raise PeerError(f"reply: no number under the metric {weight_key!r}")
    arrays = replies.arrays.items()
    return Layout(
        replies.array_key,
        replies.metric_key,
        tuple((name, str(rows.dtype), rows.shape[1:]) for name, rows in arrays),
        tuple(sorted(name for name in replies.metrics if name != weight_key)),
    )


def _read_metrics(
    metrics: MetricRecord, weight_key: str
) -> tuple[float, dict[str, float]]:
    try:
        numbers = {
            name: float(value)
            for name, value in sorted(metrics.items())
            if isinstance(value, int | float)
        }
    except OverflowError as exc:
        raise PeerError("reply: a metric is too large for a float") from exc
    if weight_key not in numbers:
        raise PeerError(f"reply: no number under the metric {weight_key!r}")
    if not np.isfinite(list(numbers.values())).all():
        raise PeerError("reply: a metric is not finite")
    return numbers.pop(weight_key), numbers


def _size(shape: Sequence[int]) -> int:
    return int(np.prod(shape))


def _concatenate(arrays: list[AnyArray]) -> AnyArray:
    # Whole numbers as floats: of the least int64 there is no absolute value.
    arrays = [a if a.dtype.kind == "f" else a.astype(np.float64) for a in arrays]
    if len(arrays) == 1:
        return arrays[0].reshape(-1)
    return np.concatenate([array.reshape(-1) for array in arrays] or [np.zeros(0)])
