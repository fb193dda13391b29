"""What a device knows of itself: from its own configuration, never from a server."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from flwr.app import Context

from fedge.config import Backend
from fedge.errors import ConfigError, VerificationError

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
        backend: what it trains with (`train-backend`, or FEDGE_TRAIN_BACKEND: "torch"
            or "onnx"); by default PyTorch where that is installed.
        graphs: SHA-256 (hex) of the training, evaluation and calibration graphs that it
            runs (`train-graphs`, separated by commas); empty: any that is valid.
    """

    partition_id: int
    data_root: Path | None
    folder: Path | None
    allow: tuple[str, ...]
    may_train_openly: bool
    backend: Backend = Backend.torch
    graphs: tuple[str, ...] = ()

    def check_allowed(self, sha256: str) -> None:
        """Raise VerificationError unless the owner lets this graph be run.

        Args:
            sha256: of the graph that a server sent (hex).
        """
        if self.graphs and sha256 not in self.graphs:
            raise VerificationError(
                f"graph {sha256[:16]}... is none of those that this device's owner "
                f"allows (node config train-graphs)"
            )

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
        secagg = _text(config, "secagg") or os.environ.get("FEDGE_SECAGG", "required")
        if secagg not in _SECAGG:
            raise ConfigError(f"node config secagg: {secagg!r} not in {_SECAGG}")
        return cls(
            partition_id=partition_id,
            data_root=Path(root) if root else None,
            folder=Path(folder) if folder else None,
            allow=_names(config, "allow"),
            may_train_openly=secagg == "optional",
            backend=_backend(config),
            graphs=_names(config, "train-graphs"),
        )


@cache
def has_torch() -> bool:
    """Say whether PyTorch is installed, without importing it."""
    try:
        return find_spec("torch") is not None
    except ImportError:
        return False


def _backend(config: Mapping[str, bool | int | float | str]) -> Backend:
    name = _text(config, "train-backend") or os.environ.get("FEDGE_TRAIN_BACKEND", "")
    if not name:
        return Backend.torch if has_torch() else Backend.onnx
    if name not in list(Backend):
        raise ConfigError(
            f"node config train-backend: {name!r} not in {tuple(map(str, Backend))}"
        )
    return Backend(name)


def _names(
    config: Mapping[str, bool | int | float | str], name: str
) -> tuple[str, ...]:
    parts = (part.strip() for part in _text(config, name).split(","))
    return tuple(part for part in parts if part)


def _text(config: Mapping[str, bool | int | float | str], name: str) -> str:
    value = config.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"node config {name}: {value!r} must be text")
    return value
