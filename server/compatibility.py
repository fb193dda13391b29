"""Settings that are each fine but do not fit together: refused before a run starts.

All problems are found and told at once, each with the two settings and the ways out.
"""

import math

from fedge.config import (
    Backend,
    Calibration,
    CompressionConfig,
    CrashMoment,
    Experiment,
    PartitionKind,
    Quantization,
    RangeStatistic,
    SecAggMode,
    Task,
)
from fedge.config.compression import PruneScope
from fedge.config.fitting import fitting_augmentations, fitting_models
from fedge.config.fleet import AvailabilityKind
from fedge.errors import ConfigError
from fedge.fleet.profiles import core_flops_per_second
from fedge.secagg.ring import PROFILES
from fedge.strategy import Needs

# Forms that need activation ranges; all but these compute in float32.
_WITH_RANGES = set(Quantization) - {
    Quantization.none,
    Quantization.dynamic,
    Quantization.int4,
    Quantization.codebook,
}
_EXACT = 1e-9
_FILE_LOADERS = ("fashion_mnist", "uci_har", "shakespeare", "heart_disease")

# Each simulated device verifies and tests a release, which takes about a second.
_MAX_RELEASE_DEVICES = 10_000


def check_compatible(experiment: Experiment) -> None:
    """Raise ConfigError if settings contradict each other; list every contradiction."""
    problems = [
        *_fleet_problems(experiment),
        *_partition_problems(experiment),
        *_model_problems(experiment),
        *_secagg_problems(experiment),
        *_calibration_problems(experiment),
        *_fault_problems(experiment),
        *_compression_problems(experiment),
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _fleet_problems(experiment: Experiment) -> list[str]:
    run, fleet = experiment.run, experiment.fleet
    problems = []
    if 0 < fleet.num_devices < run.cohort:
        problems.append(
            f"run.cohort: {run.cohort} is more than fleet.num_devices: "
            f"{fleet.num_devices}; lower the one or raise the other"
        )
    if fleet.num_devices == 0 and experiment.partition.kind is not (
        PartitionKind.natural
    ):
        problems.append(
            "fleet.num_devices: 0 (one device per natural owner) needs "
            "partition=natural; or name a number of devices"
        )
    if experiment.data.loader in _FILE_LOADERS and not experiment.data.root:
        problems.append(
            f"data.root: empty, but data={experiment.data.name} is read from files; "
            f"set data.root=FOLDER or the environment variable FEDGE_DATA_ROOT"
        )
    if fleet.availability is AvailabilityKind.trace and not fleet.path:
        problems.append(
            "fleet.path: empty, but fleet=trace replays a recorded trace; set "
            "fleet.path=FILE (the columns are in docs/fleets.md)"
        )
    if experiment.release.enabled and fleet.num_devices > _MAX_RELEASE_DEVICES:
        problems.append(
            f"fleet.num_devices: a release is pushed to every one of "
            f"{fleet.num_devices} devices, at most {_MAX_RELEASE_DEVICES} in a "
            f"simulation; set release=none"
        )
    return problems


def _partition_problems(experiment: Experiment) -> list[str]:
    data, kind = experiment.data, experiment.partition.kind
    if kind is PartitionKind.natural and not data.natural_clients:
        return [
            f"partition.kind: natural, but data={data.name} does not say whose each "
            f"example is; use partition=dirichlet, iid, shards or quantity"
        ]
    by_label = kind in (PartitionKind.dirichlet, PartitionKind.shards)
    if by_label and data.task is not Task.classification:
        return [
            f"partition.kind: {kind} splits by class, but data={data.name} is a "
            f"{data.task} task; use partition=iid, quantity or natural"
        ]
    return []


def _model_problems(experiment: Experiment) -> list[str]:
    data, model, augment = experiment.data, experiment.model, experiment.train.augment
    problems = []
    fitting = fitting_models(data.kind, data.task)
    if not model.builder and model.name not in fitting:
        problems.append(
            f"model.name: {model.name} does not fit data={data.name} ({data.kind}, "
            f"{data.task}); use model={' or '.join(fitting) or 'your own, by builder'}"
        )
    suiting = fitting_augmentations(data.kind, data.task)
    if augment not in suiting:
        problems.append(
            f"train.augment: {augment} does not fit data={data.name} ({data.kind}, "
            f"{data.task}); use {' or '.join(suiting)}"
        )
    return problems


def _secagg_problems(experiment: Experiment) -> list[str]:
    secagg, run = experiment.secagg, experiment.run
    if secagg.mode is SecAggMode.off:
        return []
    problems = []
    if run.cohort < secagg.min_cohort:
        problems.append(
            f"run.cohort: {run.cohort} is less than secagg.min_cohort: "
            f"{secagg.min_cohort}; ask more devices, lower the floor (not below 3), or "
            f"set secagg=off"
        )
    profile = PROFILES[str(secagg.profile)]
    asked = math.ceil(run.cohort * (1.0 + run.over_sampling))
    if asked > profile.max_clients:
        fitting = [n for n, p in PROFILES.items() if p.max_clients >= asked]
        problems.append(
            f"secagg.profile: {secagg.profile} holds {profile.max_clients} devices, "
            f"but {asked} are asked (run.cohort, run.over_sampling); use "
            f"{' or '.join(fitting) or 'fewer devices'}"
        )
    return problems


def _compression_problems(experiment: Experiment) -> list[str]:
    compression, run = experiment.compression, experiment.run
    problems = []
    if compression.qat_rounds > run.rounds:
        problems.append(
            f"compression.qat_rounds: {compression.qat_rounds} is more than "
            f"run.rounds: {run.rounds}; train for the form in fewer rounds"
        )
    if compression.qat_rounds > 0 and experiment.train.backend is Backend.onnx:
        problems.append(
            "compression.qat_rounds: weights are rounded by PyTorch alone, but "
            "train.backend=onnx; set qat_rounds=0 or train.backend=torch"
        )
    if compression.distill_epochs > 0 and not experiment.release.enabled:
        problems.append(
            "compression.distill_epochs: what is distilled is the release, but "
            "release=none; set distill_epochs=0 or release=signed"
        )
    kept = compression.sparsity * compression.prune_group
    if compression.prune_scope is PruneScope.group and abs(kept - round(kept)) > _EXACT:
        problems.append(
            f"compression.sparsity: {compression.sparsity} of prune_group="
            f"{compression.prune_group} is no whole number; use a multiple of "
            f"{1 / compression.prune_group:g}"
        )
    return problems + _device_problems(compression)


def _device_problems(compression: CompressionConfig) -> list[str]:
    device = compression.device
    try:
        if device is not None:
            core_flops_per_second(device)
    except ConfigError as exc:
        return [str(exc)]
    return []


def _calibration_problems(experiment: Experiment) -> list[str]:
    compression, secagg = experiment.compression, experiment.secagg
    if (
        compression.calibration is Calibration.federated
        and compression.quantization in _WITH_RANGES
        and compression.range_statistic is RangeStatistic.extremes
        and secagg.mode is not SecAggMode.off
    ):
        return [
            f"compression.range_statistic: extremes needs every device's own ranges, "
            f"which secagg.mode: {secagg.mode} hides; use "
            f"compression.range_statistic=mean, or set secagg=off"
        ]
    return []


def _fault_problems(experiment: Experiment) -> list[str]:
    faults, rounds = experiment.faults, experiment.run.rounds
    crash, full = faults.crash_coordinator_round, faults.disk_full_round
    problems = [
        f"faults.{name}: {number} is more than run.rounds: {rounds}, so it would never "
        f"happen; name an earlier round, or 0 for never"
        for name, number in (
            ("crash_coordinator_round", crash),
            ("disk_full_round", full),
        )
        if number > rounds
    ]
    after_training = (CrashMoment.signing, CrashMoment.pushing)
    if crash and faults.crash_coordinator_at in after_training:
        if not experiment.release.enabled:
            problems.append(
                f"faults.crash_coordinator_at: {faults.crash_coordinator_at} needs a "
                f"release; set release=signed, or crash when committing or committed"
            )
    elif crash and crash == full:
        problems.append(
            f"faults.disk_full_round: {full} is faults.crash_coordinator_round, too; "
            f"name two different rounds"
        )
    return problems


def check_strategy_fits(experiment: Experiment, needs: Needs) -> None:
    """Raise ConfigError if the strategy needs what secure aggregation hides."""
    if needs is Needs.UPDATES and experiment.secagg.mode is not SecAggMode.off:
        raise ConfigError(
            f"strategy._target_: {experiment.strategy['_target_']} must see every "
            f"single update, which secagg.mode: {experiment.secagg.mode} hides; set "
            f"secagg=off, or use a strategy that needs only the mean (fedavg, fedprox, "
            f"fedavgm, fedadam, fedyogi, fedadagrad)"
        )
