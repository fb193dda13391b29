"""Every setting as a dataclass that is checked when it is made.

`conf/*.yaml` only fills these; nothing in here reads a file or imports Hydra.
"""

from fedge.config.compression import (
    Calibration,
    CompressionConfig,
    Quantization,
    RangeStatistic,
)
from fedge.config.data import DataConfig, DataKind, Task
from fedge.config.engine import Batching, EngineConfig, EngineKind
from fedge.config.experiment import Experiment
from fedge.config.faults import CrashKind, CrashMoment, FaultsConfig
from fedge.config.fleet import FleetConfig
from fedge.config.model import ModelConfig, ModelName
from fedge.config.partition import PartitionConfig, PartitionKind
from fedge.config.release import ReleaseConfig
from fedge.config.run import RunConfig
from fedge.config.secagg import ProfileName, SecAggConfig, SecAggMode
from fedge.config.train import (
    Augmentation,
    Backend,
    OptimizerName,
    Precision,
    ScheduleKind,
    TrainConfig,
)

__all__ = [
    "Augmentation",
    "Backend",
    "Batching",
    "Calibration",
    "CompressionConfig",
    "CrashKind",
    "CrashMoment",
    "DataConfig",
    "DataKind",
    "EngineConfig",
    "EngineKind",
    "Experiment",
    "FaultsConfig",
    "FleetConfig",
    "ModelConfig",
    "ModelName",
    "OptimizerName",
    "PartitionConfig",
    "PartitionKind",
    "Precision",
    "ProfileName",
    "Quantization",
    "RangeStatistic",
    "ReleaseConfig",
    "RunConfig",
    "ScheduleKind",
    "SecAggConfig",
    "SecAggMode",
    "Task",
    "TrainConfig",
]
