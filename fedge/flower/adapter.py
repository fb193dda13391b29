"""Any strategy of Flower's Message API as one of ours.

A Flower strategy is an object that samples, remembers and aggregates. Here it is made
afresh for each round, given back what it remembered, asked how it configures training
and handed the replies; what it remembers then goes into our state. So a run with a
Flower strategy is journalled and resumed like any other.

Left out: strategies that send different instructions to different clients (FedXgb).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies

from fedge.aggregation import UpdateMatrix, WeightedSum
from fedge.arrays import AnyArray, Float32
from fedge.errors import ConfigError, RoundAbortedError
from fedge.flower.node_list import NodeList, ensure_task_identity
from fedge.flower.records import array_of, read_array
from fedge.strategy import LocalSettings, Needs, Scalar

# These use nothing but the weighted mean of the replies.
_MEAN_BASED: tuple[type[flower.Strategy], ...] = (
    flower.FedAdagrad,
    flower.FedAdam,
    flower.FedAvg,
    flower.FedAvgM,
    flower.FedProx,
    flower.FedYogi,
)
_MODEL = "model"
_PROXIMAL_MU = "proximal-mu"


@dataclass(frozen=True, slots=True)
class FlowerState:
    """What the server carries from one round to the next.

    Attributes:
        params: global model, float32, shape (d,).
        rounds_done: completed rounds; 0 before the first.
        memory: what the strategy's object remembered, by attribute name.
    """

    params: Float32
    rounds_done: int
    memory: Mapping[str, Any] = field(default_factory=dict)


class FlowerStrategy:
    """Runs a strategy class of `flwr.serverapp.strategy` (or derived from it).

    Attributes:
        needs: SUM for Flower's own mean-based strategies, UPDATES for any other.
    """

    def __init__(
        self, strategy_class: type[flower.Strategy], arguments: Mapping[str, Any]
    ) -> None:
        """Check the arguments by making one object.

        Raises:
            ConfigError: the class does not take these arguments.
        """
        self._class = strategy_class
        self._arguments = dict(arguments)
        try:
            fresh = self._make()
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"strategy: {strategy_class.__name__}: {exc}") from exc
        self._key = getattr(fresh, "arrayrecord_key", "arrays")
        self._weight_key = getattr(fresh, "weighted_by_key", "num-examples")
        self._loss_key = getattr(fresh, "train_loss_key", "train_loss")
        self._min_nodes = max(
            getattr(fresh, "min_train_nodes", 1),
            getattr(fresh, "min_available_nodes", 1),
        )

    @property
    def needs(self) -> Needs:
        """SUM where the weighted mean is all the strategy looks at."""
        return Needs.SUM if self._class in _MEAN_BASED else Needs.UPDATES

    def init(self, params: Float32) -> FlowerState:
        """Return the state before the first round."""
        return FlowerState(params, rounds_done=0)

    def local(self, state: FlowerState) -> LocalSettings:
        """Return what the strategy writes into the config of its training messages.

        Raises:
            ConfigError: it configures clients differently, which fedge does not carry.
        """
        config = self._configure(self._restore(state), state)
        extra: dict[str, Scalar] = {
            name: value
            for name, value in config.items()
            if isinstance(value, bool | int | float | str)
            and name not in (_PROXIMAL_MU, "server-round")
        }
        proximal_mu = config.get(_PROXIMAL_MU, 0.0)
        if not isinstance(proximal_mu, int | float):
            raise ConfigError(f"strategy: {_PROXIMAL_MU}: {proximal_mu!r} is no number")
        return LocalSettings(proximal_mu=float(proximal_mu), extra=extra)

    def apply(
        self, state: FlowerState, total: WeightedSum | UpdateMatrix
    ) -> FlowerState:
        """Return the state after one more round; `state` itself is left alone.

        Raises:
            RoundAbortedError: the strategy could not aggregate these replies.
        """
        strategy = self._restore(state)
        self._configure(strategy, state)
        server_round = state.rounds_done + 1
        replies = self._replies(state, total)
        try:
            arrays, _ = strategy.aggregate_train(server_round, replies)
        except (AggregationError, InconsistentMessageReplies, ValueError) as exc:
            raise RoundAbortedError(f"{self._class.__name__}: {exc}") from exc
        if arrays is None:
            raise RoundAbortedError(
                f"{self._class.__name__} made no model of {len(replies)} replies; it "
                f"may need more answers (run.cohort, run.min_answers)"
            )
        params = read_array(arrays[_MODEL]).astype(np.float32)
        return FlowerState(params, server_round, _memory_of(strategy))

    def _make(self) -> flower.Strategy:
        return self._class(**self._arguments)

    def _restore(self, state: FlowerState) -> flower.Strategy:
        strategy = self._make()
        for name, frozen in state.memory.items():
            setattr(strategy, name, _thaw(frozen))
        return strategy

    def _configure(self, strategy: flower.Strategy, state: FlowerState) -> ConfigRecord:
        """Let the strategy configure a round; return the config of its messages."""
        # Its own sampling draws from these nodes only to count them: which devices
        # really take part is the coordinator's (seeded) business.
        ensure_task_identity()
        grid = NodeList(range(self._min_nodes))
        messages = list(
            strategy.configure_train(
                state.rounds_done + 1, _record(state.params), ConfigRecord(), grid
            )
        )
        if not messages:
            raise ConfigError(f"strategy: {self._class.__name__} trains nobody")
        configs = [_config_of(message) for message in messages]
        if any(dict(config) != dict(configs[0]) for config in configs):
            raise ConfigError(
                f"strategy: {self._class.__name__} configures clients differently; "
                f"run it with fedge.flower.simulate instead"
            )
        return configs[0]

    def _replies(
        self, state: FlowerState, total: WeightedSum | UpdateMatrix
    ) -> list[Message]:
        if isinstance(total, WeightedSum):
            delta = total.mean().astype(np.float32)
            return [self._reply(state.params + delta, total.weight_sum, 0.0)]
        rows = zip(total.deltas, total.weights, total.losses, strict=True)
        return [
            self._reply(state.params + delta, float(weight), float(loss))
            for delta, weight, loss in rows
        ]

    def _reply(self, params: Float32, weight: float, loss: float) -> Message:
        metrics = MetricRecord({self._weight_key: weight, self._loss_key: loss})
        content = RecordDict({self._key: _record(params), "metrics": metrics})
        return Message(content, dst_node_id=0, message_type="train")


def _record(params: Float32) -> ArrayRecord:
    return ArrayRecord({_MODEL: array_of(params)})


def _config_of(message: Message) -> ConfigRecord:
    records = list(message.content.config_records.values())
    return records[0] if records else ConfigRecord()


def _memory_of(strategy: flower.Strategy) -> dict[str, Any]:
    """Return the attributes that are data; others belong to the constructor."""
    frozen = {name: _freeze(value) for name, value in vars(strategy).items()}
    return {name: value for name, value in frozen.items() if value is not _NO_DATA}


_NO_DATA = object()


def _freeze(value: object) -> Any:  # noqa: ANN401 - arrays and scalars, nested
    match value:
        case None | bool() | int() | float() | str():
            frozen: object = value
        case np.generic():
            frozen = value.item()
        case np.ndarray():
            frozen = value.copy()
        case ArrayRecord():
            frozen = {"ArrayRecord": {n: read_array(a) for n, a in value.items()}}
        case dict():
            frozen = _freeze_all("dict", map(str, value.keys()), value.values())
        case list() | tuple():
            frozen = _freeze_all("list", map(str, range(len(value))), value)
        case _:
            frozen = _NO_DATA
    return frozen


def _freeze_all(kind: str, names: Iterable[str], values: Iterable[object]) -> Any:  # noqa: ANN401
    frozen = {name: _freeze(v) for name, v in zip(names, values, strict=True)}
    if any(value is _NO_DATA for value in frozen.values()):
        return _NO_DATA
    return {kind: frozen}


def _thaw(frozen: Any) -> Any:  # noqa: ANN401 - the inverse of _freeze
    if isinstance(frozen, np.ndarray):
        array: AnyArray = frozen.copy()
        return array
    if not isinstance(frozen, Mapping):
        return frozen
    ((kind, parts),) = frozen.items()
    if kind == "ArrayRecord":
        return ArrayRecord({name: array_of(array) for name, array in parts.items()})
    thawed = {name: _thaw(part) for name, part in parts.items()}
    return thawed if kind == "dict" else list(thawed.values())
