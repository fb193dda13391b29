"""Each group's own limits; a message names the setting."""

from collections.abc import Callable

import pytest

from fedge import config
from fedge.errors import ConfigError

GROUPS: list[Callable[[], object]] = [
    config.CompressionConfig,
    config.DataConfig,
    config.EngineConfig,
    config.FleetConfig,
    config.ModelConfig,
    config.PartitionConfig,
    config.ReleaseConfig,
    config.RunConfig,
    config.TrainConfig,
]


@pytest.mark.parametrize("group", GROUPS)
def test_the_defaults_are_allowed(group: Callable[[], object]) -> None:
    assert group() == group()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: config.CompressionConfig(sparsity=1.0), "compression.sparsity: 1.0"),
        (
            lambda: config.CompressionConfig(prune_begin=0.9, prune_end=0.8),
            "compression.prune_end: 0.8 is before compression.prune_begin: 0.9",
        ),
        (lambda: config.CompressionConfig(zstd_level=23), "zstd_level: 23 not in"),
        (lambda: config.CompressionConfig(calibration_examples=0), "at least 1"),
        (lambda: config.CompressionConfig(max_accuracy_drop=1.5), "not in [0.0, 1.0]"),
        (lambda: config.CompressionConfig(min_ratio=-1), "compression.min_ratio: -1"),
        (lambda: config.DataConfig(loader=""), "data.loader: must not be empty"),
        (lambda: config.DataConfig(max_examples=-1), "data.max_examples: -1"),
        (lambda: config.EngineConfig(threads=0), "engine.threads: 0 not in [1, 256]"),
        (lambda: config.FleetConfig(num_devices=-1), "fleet.num_devices: -1"),
        (lambda: config.FleetConfig(drop_probability=1), "fleet.drop_probability: 1"),
        (lambda: config.ModelConfig(hidden=0), "model.hidden: 0"),
        (lambda: config.ModelConfig(dropout=1.0), "model.dropout: 1.0"),
        (
            lambda: config.ModelConfig(widths=[8, 0]),
            "model.widths: 0 not in [1, 16384]",
        ),
        (lambda: config.ModelConfig(widths=[]), "model.widths: model cnn needs"),
        (lambda: config.PartitionConfig(alpha=0.0), "partition.alpha: 0.0"),
        (lambda: config.PartitionConfig(shards_per_client=0), "shards_per_client: 0"),
        (lambda: config.PartitionConfig(min_examples=0), "partition.min_examples: 0"),
        (lambda: config.ReleaseConfig(root_keys=0), "release.root_keys: 0"),
        (
            lambda: config.ReleaseConfig(root_keys=2, root_threshold=3),
            "release.root_threshold: 3 not in [1, 2] (release.root_keys)",
        ),
        (lambda: config.ReleaseConfig(expiry_days=0), "release.expiry_days: 0"),
        (lambda: config.ReleaseConfig(reference_examples=0), "reference_examples: 0"),
        (lambda: config.ReleaseConfig(tolerance=-1e-9), "release.tolerance: -1e-09"),
        (lambda: config.ReleaseConfig(max_latency_ms=0), "release.max_latency_ms: 0"),
        (lambda: config.ReleaseConfig(max_memory_mb=63), "release.max_memory_mb: 63"),
        (lambda: config.RunConfig(rounds=0), "run.rounds: 0"),
        (lambda: config.RunConfig(cohort=0), "run.cohort: 0"),
        (lambda: config.RunConfig(over_sampling=11), "run.over_sampling: 11"),
        (
            lambda: config.RunConfig(cohort=3, min_answers=4),
            "run.min_answers: 4 not in [1, 3] (run.cohort)",
        ),
        (lambda: config.RunConfig(max_attempts=0), "run.max_attempts: 0"),
        (lambda: config.RunConfig(deadline_seconds=-1), "run.deadline_seconds: -1"),
        (lambda: config.RunConfig(evaluate_every=0), "run.evaluate_every: 0"),
        (lambda: config.RunConfig(seed=-1), "run.seed: -1"),
        (lambda: config.RunConfig(seed=2**63), "run.seed: "),
        (lambda: config.TrainConfig(learning_rate=0.0), "train.learning_rate: 0.0"),
        (lambda: config.TrainConfig(momentum=1.0), "train.momentum: 1.0"),
        (lambda: config.TrainConfig(weight_decay=-1), "train.weight_decay: -1"),
        (lambda: config.TrainConfig(epochs=0), "train.epochs: 0"),
        (lambda: config.TrainConfig(steps=-1), "train.steps: -1"),
        (lambda: config.TrainConfig(batch_size=0), "train.batch_size: 0"),
        (lambda: config.TrainConfig(clip_norm=-1), "train.clip_norm: -1"),
        (lambda: config.TrainConfig(decay_rounds=0), "train.decay_rounds: 0"),
        (lambda: config.TrainConfig(decay_factor=0.0), "decay_factor: 0.0 not in (0"),
        (lambda: config.TrainConfig(final_factor=1.1), "final_factor: 1.1 not in [0"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(
    make: Callable[[], object], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", ".", "a b", "a..b", ".a", "a.", "1a", "a-b", "a;b"]
)
def test_run_allow_takes_package_names_only(name: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.allow: .* is not a package name"):
        config.RunConfig(allow=["mine", name])


@pytest.mark.parametrize("name", ["mine", "my_lab.models", "_private"])
def test_run_allow_takes_dotted_names(name: str) -> None:
    assert config.RunConfig(allow=[name]).allow == [name]


def test_a_model_without_hidden_layers_or_with_a_builder_needs_no_widths() -> None:
    config.ModelConfig(name=config.ModelName.logistic, widths=[])
    config.ModelConfig(builder="mine:model", widths=[])
