"""Every contradiction names its settings and a way out; nothing else is refused."""

from collections.abc import Callable

import pytest

from fedge.config import (
    Augmentation,
    Backend,
    CompressionConfig,
    CrashMoment,
    DataConfig,
    DataKind,
    Experiment,
    FaultsConfig,
    FleetConfig,
    ModelConfig,
    ModelName,
    PartitionConfig,
    PartitionKind,
    ReleaseConfig,
    RunConfig,
    Task,
    TrainConfig,
)
from fedge.config.compression import PruneScope
from fedge.config.fitting import AUGMENTATIONS_BY_KIND, MODELS_BY_KIND
from fedge.config.fleet import DeviceKind
from fedge.errors import ConfigError
from server.compatibility import check_compatible

IID = PartitionConfig(kind=PartitionKind.iid)
NATURAL = PartitionConfig(kind=PartitionKind.natural)
OWNED = DataConfig(natural_clients=True)
SHAPES = DataConfig(name="shapes", loader="shapes", task=Task.detection)
DETECTOR = ModelConfig(name=ModelName.detector)
AT_THE_PUSH = FaultsConfig(
    crash_coordinator_round=1, crash_coordinator_at=CrashMoment.pushing
)


def problems(experiment: Experiment) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_compatible(experiment)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("experiment", "says"),
    [
        (
            Experiment(run=RunConfig(cohort=21), fleet=FleetConfig(num_devices=20)),
            ["run.cohort: 21", "fleet.num_devices: 20", "lower the one"],
        ),
        (
            Experiment(fleet=FleetConfig(num_devices=0)),
            ["fleet.num_devices: 0", "partition=natural"],
        ),
        (
            Experiment(
                compression=CompressionConfig(device=DeviceKind.jetson_agx_orin)
            ),
            ["compression.device", "jetson_agx_orin is not known", "raspberry_pi_4"],
        ),
        (
            Experiment(
                compression=CompressionConfig(qat_rounds=21), run=RunConfig(rounds=20)
            ),
            ["compression.qat_rounds: 21", "run.rounds: 20"],
        ),
        (
            Experiment(
                compression=CompressionConfig(qat_rounds=1),
                train=TrainConfig(backend=Backend.onnx),
            ),
            ["compression.qat_rounds", "train.backend=onnx"],
        ),
        (
            Experiment(
                compression=CompressionConfig(distill_epochs=1),
                release=ReleaseConfig(enabled=False),
            ),
            ["compression.distill_epochs", "release=none"],
        ),
        (
            Experiment(
                compression=CompressionConfig(
                    sparsity=0.6, prune_scope=PruneScope.group, prune_group=4
                )
            ),
            ["compression.sparsity: 0.6", "a multiple of 0.25"],
        ),
        (Experiment(partition=NATURAL), ["partition.kind: natural", "data=digits"]),
        (
            Experiment(data=DataConfig(task=Task.regression)),
            ["partition.kind: dirichlet", "regression task", "partition=iid"],
        ),
        (
            Experiment(
                data=DataConfig(task=Task.regression),
                partition=PartitionConfig(kind=PartitionKind.shards),
            ),
            ["partition.kind: shards", "regression task"],
        ),
        (
            Experiment(data=DataConfig(name="har", loader="uci_har")),
            ["data.root: empty", "data=har", "FEDGE_DATA_ROOT"],
        ),
        (
            Experiment(model=ModelConfig(name=ModelName.gru)),
            ["model.name: gru", "digits (image, class", "model=cnn or mobilenet"],
        ),
        (
            Experiment(
                data=DataConfig(kind=DataKind.table),
                model=ModelConfig(name=ModelName.mlp),
                train=TrainConfig(augment=Augmentation.flip),
            ),
            ["train.augment: flip", "digits (table, class", "use none or noise"],
        ),
        (
            Experiment(data=SHAPES, partition=IID),
            ["model.name: cnn", "shapes (image, detection)", "model=detector"],
        ),
        (
            Experiment(data=SHAPES, model=DETECTOR),
            ["partition.kind: dirichlet", "detection task", "partition=iid"],
        ),
        (
            Experiment(
                data=SHAPES,
                model=DETECTOR,
                partition=IID,
                train=TrainConfig(augment=Augmentation.flip),
            ),
            ["train.augment: flip", "detection", "use none or noise"],
        ),
        (
            Experiment(
                data=DataConfig(kind=DataKind.table, task=Task.detection),
                model=DETECTOR,
                partition=IID,
            ),
            ["model.name: detector", "(table, detection)", "by builder"],
        ),
        (
            Experiment(faults=FaultsConfig(crash_coordinator_round=21)),
            ["faults.crash_coordinator_round: 21", "run.rounds: 20", "or 0"],
        ),
        (
            Experiment(faults=FaultsConfig(disk_full_round=21)),
            ["faults.disk_full_round: 21", "run.rounds: 20", "or 0"],
        ),
        (
            Experiment(
                faults=FaultsConfig(crash_coordinator_round=2, disk_full_round=2)
            ),
            ["faults.disk_full_round: 2", "faults.crash_coordinator_round"],
        ),
        (
            Experiment(release=ReleaseConfig(enabled=False), faults=AT_THE_PUSH),
            ["faults.crash_coordinator_at: pushing", "release=signed"],
        ),
    ],
)
def test_a_contradiction_is_the_only_problem_and_names_both_sides(
    experiment: Experiment, says: list[str]
) -> None:
    [problem] = problems(experiment)
    assert all(part in problem for part in says), problem


@pytest.mark.parametrize(
    "make",
    [
        Experiment,
        lambda: Experiment(run=RunConfig(cohort=20), fleet=FleetConfig(num_devices=20)),
        lambda: Experiment(
            data=OWNED, partition=NATURAL, fleet=FleetConfig(num_devices=0)
        ),
        lambda: Experiment(data=DataConfig(task=Task.regression), partition=IID),
        lambda: Experiment(data=DataConfig(loader="uci_har", root="/data")),
        lambda: Experiment(data=DataConfig(loader="mine:load")),
        lambda: Experiment(data=SHAPES, model=DETECTOR, partition=IID),
        lambda: Experiment(release=ReleaseConfig(enabled=True), faults=AT_THE_PUSH),
        lambda: Experiment(faults=FaultsConfig(disk_full_round=20)),
        lambda: Experiment(model=ModelConfig(name=ModelName.gru, builder="mine:model")),
    ],
)
def test_settings_that_fit_pass(make: Callable[[], Experiment]) -> None:
    check_compatible(make())


@pytest.mark.parametrize("model", ModelName)
@pytest.mark.parametrize("kind", DataKind)
def test_a_model_passes_exactly_when_the_table_has_it(
    kind: DataKind, model: ModelName
) -> None:
    experiment = Experiment(data=DataConfig(kind=kind), model=ModelConfig(name=model))
    if model in MODELS_BY_KIND[kind]:
        check_compatible(experiment)
    else:
        assert problems(experiment)[0].startswith(f"model.name: {model} ")


@pytest.mark.parametrize("augment", Augmentation)
@pytest.mark.parametrize("kind", DataKind)
def test_an_augmentation_passes_exactly_when_the_table_has_it(
    kind: DataKind, augment: Augmentation
) -> None:
    experiment = Experiment(
        data=DataConfig(kind=kind),
        model=ModelConfig(name=MODELS_BY_KIND[kind][0]),
        train=TrainConfig(augment=augment),
    )
    if augment in AUGMENTATIONS_BY_KIND[kind]:
        check_compatible(experiment)
    else:
        assert problems(experiment)[0].startswith(f"train.augment: {augment} ")


def test_all_problems_are_told_at_once() -> None:
    experiment = Experiment(
        data=DataConfig(kind=DataKind.text, task=Task.next_token, loader="shakespeare"),
        fleet=FleetConfig(num_devices=0),
        train=TrainConfig(augment=Augmentation.noise),
    )
    assert [problem.partition(":")[0] for problem in problems(experiment)] == [
        "fleet.num_devices",
        "data.root",
        "partition.kind",
        "model.name",
        "train.augment",
    ]
