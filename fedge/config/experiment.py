"""All settings of one run, and their form on the wire (JSON).

The coordinator sends the settings of a round's work to the devices as JSON; what a
device reads there is as untrusted as any message, so it is parsed strictly: unknown
names, wrong types and values out of range are refused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedge.config.compression import CompressionConfig
from fedge.config.data import DataConfig
from fedge.config.engine import EngineConfig
from fedge.config.fleet import FleetConfig
from fedge.config.model import ModelConfig
from fedge.config.partition import PartitionConfig
from fedge.config.release import ReleaseConfig
from fedge.config.run import RunConfig
from fedge.config.train import TrainConfig
from fedge.errors import ConfigError

T = TypeVar("T")

# Settings are a few kilobytes; anything larger is an attack or a mistake.
MAX_JSON_BYTES = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Experiment:
    """One run.

    Attributes:
        strategy: `_target_` (the class) and its arguments.
        data, partition, model, train, fleet, compression, release, engine, run: see
            each group's own class.
    """

    strategy: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "strategies.fedavg.FedAvg"}
    )
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    compression: CompressionConfig = field(default_factory=CompressionConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(slots=True, kw_only=True)
class ClientTask:
    """The part of an experiment that a device is told.

    Attributes:
        seed: the run's seed.
        num_devices: devices the simulated data is split over.
        data, partition, model, train: see each group's own class.
    """

    seed: int
    num_devices: int
    data: DataConfig
    partition: PartitionConfig
    model: ModelConfig
    train: TrainConfig


_ADAPTER_BY_CLASS: dict[type, TypeAdapter[Any]] = {}


def _adapter(cls: type) -> TypeAdapter[Any]:
    if cls not in _ADAPTER_BY_CLASS:
        strict = with_config(ConfigDict(extra="forbid"))
        for part in getattr(cls, "__dataclass_fields__", {}).values():
            if hasattr(part.type, "__dataclass_fields__"):
                strict(part.type)
        _ADAPTER_BY_CLASS[cls] = TypeAdapter(strict(cls))
    return _ADAPTER_BY_CLASS[cls]


def to_json(settings: object) -> str:
    """Return a settings dataclass as canonical JSON: sorted keys, no blanks."""
    plain: Mapping[str, Any] = asdict(settings)  # type: ignore[call-overload]  # any
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def from_json(cls: type[T], text: str) -> T:
    """Return the settings that `to_json` wrote.

    Guarantee: `from_json(type(x), to_json(x)) == x`.

    Raises:
        ConfigError: not JSON, too long, an unknown or missing name, a wrong type, or a
            value out of range.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ConfigError(f"settings: {len(text)} bytes, at most {MAX_JSON_BYTES}")
    try:
        settings: T = _adapter(cls).validate_json(text)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"settings: {where}: {first['msg']}") from exc
    return settings
