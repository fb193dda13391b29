"""What a device knows of itself: from its own configuration, never from a server."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context

from fedge.errors import ConfigError

_SECAGG = ("required", "optional")


@dataclass(frozen=True, slots=True)
class Device:
    """One device's own settings (`flower-supernode --node-config ...`).

    Attributes:
        partition_id: its place in the fleet (`partition-id`).
        data_root: folder with its data (`data-root`, or FEDGE_DATA_ROOT); None for data
            that ships with a dependency.
        folder: where releases are installed (`device-dir`); None if it takes none.
        allow: packages from which a loader or a model may come (`allow`, separated by
            commas).
        may_train_openly: whether it answers training messages without secure
            aggregation (`secagg` = "optional", or FEDGE_SECAGG); by default it refuses.
    """

    partition_id: int
    data_root: Path | None
    folder: Path | None
    allow: tuple[str, ...]
    may_train_openly: bool

    @property
    def source(self) -> tuple[Path | None, tuple[str, ...]]:
        """Where its data and code come from: devices with the same share a learner."""
        return self.data_root, self.allow

    @classmethod
    def of(cls, context: Context) -> "Device":
        """Return the settings of the device this context belongs to.

        Raises:
            ConfigError: an entry of the node config is missing or malformed.
        """
        config = context.node_config
        partition_id = config.get("partition-id")
        if type(partition_id) is not int or partition_id < 0:
            raise ConfigError(
                f"node config partition-id: {partition_id!r} must be a number from 0"
            )
        root = _text(config, "data-root") or os.environ.get("FEDGE_DATA_ROOT", "")
        folder = _text(config, "device-dir")
        allow = _text(config, "allow")
        secagg = _text(config, "secagg") or os.environ.get("FEDGE_SECAGG", "required")
        if secagg not in _SECAGG:
            raise ConfigError(f"node config secagg: {secagg!r} not in {_SECAGG}")
        return cls(
            partition_id=partition_id,
            data_root=Path(root) if root else None,
            folder=Path(folder) if folder else None,
            allow=tuple(name.strip() for name in allow.split(",") if name.strip()),
            may_train_openly=secagg == "optional",
        )


def _text(config: Mapping[str, bool | int | float | str], name: str) -> str:
    value = config.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"node config {name}: {value!r} must be text")
    return value
