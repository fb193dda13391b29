"""All settings of one run, and their form on the wire (JSON).

The coordinator sends the settings of a round's work to the devices as JSON; what a
device reads there is as untrusted as any message, so it is parsed strictly: unknown
names, wrong types and values out of range are refused.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedge.config.compression import CompressionConfig
from fedge.config.data import DataConfig
from fedge.config.engine import EngineConfig
from fedge.config.faults import FaultsConfig
from fedge.config.fleet import FleetConfig
from fedge.config.model import ModelConfig
from fedge.config.partition import PartitionConfig
from fedge.config.ranges import check_at_least
from fedge.config.release import ReleaseConfig
from fedge.config.run import RunConfig
from fedge.config.secagg import SecAggConfig
from fedge.config.train import TrainConfig
from fedge.errors import ConfigError

T = TypeVar("T")

# Settings are a few kilobytes; anything larger is an attack or a mistake.
MAX_JSON_BYTES = 64 * 1024
_MAX_SHOWN = 40  # characters of a wrong value that a message repeats


@dataclass(slots=True, kw_only=True)
class Experiment:
    """One run.

    Attributes:
        strategy: `_target_` (the class) and its arguments.
        data, partition, model, train, fleet, faults, compression, release, secagg,
            engine, run: see each group's own class.
    """

    strategy: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "strategies.fedavg.FedAvg"}
    )
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    secagg: SecAggConfig = field(default_factory=SecAggConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(slots=True, kw_only=True)
class ClientTask:
    """The part of an experiment that a device is told.

    Attributes:
        seed: the run's seed, >= 0.
        num_devices: devices the simulated data is split over, >= 1.
        shapes: of the model's parameters, where they differ from those it is built with
            (structured pruning); empty if none do.
        data, partition, model, train: see each group's own class.
    """

    seed: int
    num_devices: int
    data: DataConfig
    partition: PartitionConfig
    model: ModelConfig
    train: TrainConfig
    shapes: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_at_least("seed", self.seed, 0)
        check_at_least("num_devices", self.num_devices, 1)


_ADAPTER_BY_CLASS: dict[type, TypeAdapter[Any]] = {}


def _adapter(cls: type) -> TypeAdapter[Any]:
    if cls not in _ADAPTER_BY_CLASS:
        strict = with_config(ConfigDict(extra="forbid", strict=True))
        for part in getattr(cls, "__dataclass_fields__", {}).values():
            if hasattr(part.type, "__dataclass_fields__"):
                strict(part.type)
        _ADAPTER_BY_CLASS[cls] = TypeAdapter(strict(cls))
    return _ADAPTER_BY_CLASS[cls]


def to_json(settings: object) -> str:
    """Return a settings dataclass as canonical JSON: sorted keys, no blanks.

    Raises:
        ConfigError: a strategy's argument has no form in JSON, such as infinity.
    """
    plain: Mapping[str, Any] = asdict(settings)  # type: ignore[call-overload]  # any
    try:
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"settings: cannot be written as JSON: {exc}") from exc


def from_json(cls: type[T], text: str) -> T:
    """Return the settings that `to_json` wrote.

    Guarantee: `from_json(type(x), to_json(x)) == x`.

    Raises:
        ConfigError: not JSON, too long, an unknown, missing or repeated name, a wrong
            type (a bool is no number, 3.0 is no whole number), or a value out of range.
    """
    num_bytes = len(text.encode(errors="replace"))
    if num_bytes > MAX_JSON_BYTES:
        raise ConfigError(f"settings: {num_bytes} bytes, at most {MAX_JSON_BYTES}")
    try:
        settings: T = _adapter(cls).validate_json(text)
    except ValidationError as exc:
        raise ConfigError(f"settings: {_explain(exc)}") from exc
    # Only now: the parser above bounds the depth of what this one walks through.
    json.loads(
        text,
        object_pairs_hook=_check_names,
        parse_constant=_finite,
        parse_float=_finite,
    )
    return settings


def _explain(exc: ValidationError) -> str:
    """Return the first problem: where, what, and the value if it is a short one."""
    first = exc.errors(include_url=False, include_context=False)[0]
    message, value = first["msg"], first["input"]
    if first["type"] == "value_error":  # one of ours, which names the setting itself
        return message.removeprefix("Value error, ")
    if first["type"] == "unexpected_keyword_argument":
        message = "no such setting"
    elif isinstance(value, bool | int | float | str) and first["loc"]:
        message += f", got {repr(value)[:_MAX_SHOWN]}"
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {message}" if where else message


def _check_names(pairs: Sequence[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ConfigError(f"settings: {name[:_MAX_SHOWN]!r} is given twice")
        seen.add(name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ConfigError(f"settings: {text[:_MAX_SHOWN]} is not a finite number")
    return number
