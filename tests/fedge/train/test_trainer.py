"""Local training keeps its promises; a plain loop beside it: test_trainer_oracle.py."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedge.arrays import Bool, Float32
from fedge.config import (
    Augmentation,
    DataKind,
    ModelConfig,
    ModelName,
    OptimizerName,
    Precision,
    Quantization,
    Task,
    TrainConfig,
)
from fedge.data.dataset import DataInfo, Examples
from fedge.errors import ConfigError, DataError
from fedge.models.build import build_model
from fedge.models.vector import params_of, set_params, spec_of
from fedge.runtime.preprocess import Normalization
from fedge.strategy import LocalSettings
from fedge.train.evaluate import evaluate
from fedge.train.fake_quant import WeightRounding
from fedge.train.objectives import mean_loss
from fedge.train.tensors import tensors_of
from fedge.train.trainer import LocalUpdate, train_locally

IMAGES = DataInfo(
    "stripes",
    DataKind.image,
    Task.classification,
    (1, 8, 8),
    2,
    ("horizontal", "vertical"),
    Normalization((0.5,), (0.5,)),
)
TABLE = DataInfo(
    "line", DataKind.table, Task.regression, (3,), 1, (), Normalization((0.0,), (1.0,))
)
TEXT = DataInfo(
    "cycle", DataKind.text, Task.next_token, (6,), 4, tuple("abcd"), Normalization()
)
INFOS = {
    ModelName.cnn: IMAGES,
    ModelName.mobilenet: IMAGES,
    ModelName.mobilenet_v3: IMAGES,
    ModelName.transformer: TEXT,
    ModelName.mlp: TABLE,
    ModelName.gru: TEXT,
}


def make_examples(info: DataInfo, num: int = 40) -> Examples:
    rng = np.random.default_rng(7)
    if info is TABLE:
        features = rng.standard_normal((num, 3), np.float32)
        return Examples(features, features @ np.array([1, -1, 0.5], np.float32))
    if info is TEXT:
        tokens = (rng.integers(0, 4, (num, 1)) + np.arange(7)) % 4
        return Examples(tokens[:, :-1], tokens[:, 1:])
    targets = rng.integers(0, 2, num)
    images = np.broadcast_to(np.arange(8) % 2, (num, 1, 8, 8))
    turned = np.where(targets[:, None, None, None] == 0, images.swapaxes(2, 3), images)
    return Examples(turned + 0.1 * rng.standard_normal(turned.shape), targets)


def make_model(name: ModelName, dropout: float = 0.0) -> torch.nn.Module:
    config = ModelConfig(name=name, widths=[6, 8], hidden=8, dropout=dropout)
    return build_model(config, INFOS[name], seed=0)


def train(
    model: torch.nn.Module,
    info: DataInfo,
    config: TrainConfig,
    *,
    params: Float32 | None = None,
    examples: Examples | None = None,
    mask: Bool | None = None,
    mu: float = 0.0,
    seed: int = 0,
) -> LocalUpdate:
    return train_locally(
        model,
        params_of(model, spec_of(model)) if params is None else params,
        make_examples(info) if examples is None else examples,
        info,
        config,
        local=LocalSettings(proximal_mu=mu),
        learning_rate=config.learning_rate,
        mask=mask,
        rng=np.random.default_rng(seed),
    )


@pytest.mark.parametrize("name", INFOS)
def test_every_family_learns(name: ModelName) -> None:
    model, info = make_model(name), INFOS[name]
    examples, params = make_examples(info), params_of(model, spec_of(model))
    before = evaluate(model, params, examples, info)
    config = TrainConfig(
        optimizer=OptimizerName.adam, learning_rate=0.02, epochs=12, batch_size=8
    )
    update = train(model, info, config, params=params)
    after = evaluate(model, params + update.delta, examples, info)
    assert after.loss < 0.5 * before.loss
    assert after.score > 0.9


@pytest.mark.parametrize("name", INFOS)
def test_equal_arguments_give_equal_bytes_whatever_came_before(name: ModelName) -> None:
    model, info = make_model(name, dropout=0.3), INFOS[name]
    params = params_of(model, spec_of(model))
    config = TrainConfig(batch_size=16, clip_norm=1.0)
    one = train(model, info, config, params=params)
    train(model, info, config, params=params + 1e-3, seed=5)
    evaluate(model, params, make_examples(info), info)
    torch.manual_seed(99)
    again = train(model, info, config, params=params)
    fresh = train(make_model(name, dropout=0.3), info, config, params=params)
    assert one.delta.tobytes() == again.delta.tobytes() == fresh.delta.tobytes()
    assert one.loss == again.loss == fresh.loss


def test_the_generator_decides_order_dropout_and_augmentation() -> None:
    model = make_model(ModelName.cnn, dropout=0.5)
    params = params_of(model, spec_of(model))
    config = TrainConfig(augment=Augmentation.shift)
    one, other = (
        train(model, IMAGES, config, params=params, seed=seed) for seed in (0, 1)
    )
    assert one.delta.tobytes() != other.delta.tobytes()


def test_torchs_global_generator_and_the_arguments_are_left_alone() -> None:
    model = make_model(ModelName.cnn, dropout=0.5)
    params = params_of(model, spec_of(model))
    params.setflags(write=False)
    before = torch.get_rng_state()
    train(model, IMAGES, TrainConfig(augment=Augmentation.noise), params=params)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("optimizer", OptimizerName)
def test_pruned_values_end_at_exactly_zero(optimizer: OptimizerName) -> None:
    model = make_model(ModelName.mobilenet)
    spec = spec_of(model)
    params, mask = params_of(model, spec), np.ones(spec.size, np.bool_)
    mask[: spec.num_trainable] = (
        np.random.default_rng(3).random(spec.num_trainable) < 0.5
    )
    config = TrainConfig(optimizer=optimizer, weight_decay=0.1, clip_norm=0.5)
    update = train(model, IMAGES, config, params=params, mask=mask, mu=0.1)
    np.testing.assert_array_equal(update.delta[~mask], -params[~mask])
    # Not all of them: behind a pruned scale a channel is dead and stays as it was.
    assert np.count_nonzero(update.delta[mask]) > 0.5 * np.count_nonzero(mask)
    pruned = np.where(mask, params, np.float32(0))
    again = train(model, IMAGES, config, params=pruned, mask=mask, mu=0.1)
    assert not again.delta[~mask].any()


def test_a_mask_that_keeps_all_changes_nothing() -> None:
    model = make_model(ModelName.cnn)
    params = params_of(model, spec_of(model))
    everything = np.ones(params.size, np.bool_)
    one = train(model, IMAGES, TrainConfig(), params=params)
    other = train(model, IMAGES, TrainConfig(), params=params, mask=everything)
    assert one.delta.tobytes() == other.delta.tobytes()


def test_a_strong_proximal_term_keeps_the_model_near() -> None:
    model = make_model(ModelName.cnn)
    params = params_of(model, spec_of(model))
    config = TrainConfig(epochs=5, momentum=0.0)
    free, held = (
        train(model, IMAGES, config, params=params, mu=mu) for mu in (0.0, 10.0)
    )
    assert np.linalg.norm(held.delta) < 0.5 * np.linalg.norm(free.delta)


@pytest.mark.parametrize(
    ("config", "num_steps"),
    [
        (TrainConfig(epochs=3, batch_size=16), 9),
        (TrainConfig(epochs=3, batch_size=16, steps=5), 5),
        (TrainConfig(batch_size=100, steps=4), 4),
    ],
)
def test_epochs_or_steps_say_how_long(config: TrainConfig, num_steps: int) -> None:
    update = train(make_model(ModelName.cnn), IMAGES, config)
    assert (update.num_steps, update.num_examples) == (num_steps, 40)


def test_the_reported_loss_is_the_mean_over_examples_before_their_step() -> None:
    model = make_model(ModelName.cnn)
    params = params_of(model, spec_of(model))
    config = TrainConfig(epochs=1, batch_size=16, learning_rate=1e-9)
    update = train(model, IMAGES, config, params=params)
    expected = evaluate(model, params, make_examples(IMAGES), IMAGES).loss
    assert update.loss == pytest.approx(expected, rel=1e-5)  # float32 sums


@pytest.mark.parametrize(("num", "batch_size"), [(1, 32), (5, 1), (9, 8)])
def test_batch_normalization_survives_a_batch_of_one(num: int, batch_size: int) -> None:
    info = replace(IMAGES, input_shape=(1, 1, 1))
    config = ModelConfig(name=ModelName.mobilenet, widths=[4])
    model = build_model(config, info, seed=0)
    examples = make_examples(IMAGES, num)
    small = Examples(examples.features[:, :, :1, :1], examples.targets)
    update = train(model, info, TrainConfig(batch_size=batch_size), examples=small)
    assert update.delta.any()


def test_running_statistics_are_part_of_the_update() -> None:
    model = make_model(ModelName.mobilenet)
    spec = spec_of(model)
    update = train(model, IMAGES, TrainConfig())
    assert np.count_nonzero(update.delta[spec.num_trainable :]) > 0


@pytest.mark.parametrize("name", [ModelName.cnn, ModelName.mlp])
@pytest.mark.parametrize("form", [Quantization.int4, Quantization.codebook])
def test_the_gradient_is_that_of_the_rounded_model(
    form: Quantization, name: ModelName
) -> None:
    config = ModelConfig(name=name, widths=[8, 40], hidden=40)
    model, examples = build_model(config, IMAGES, seed=0), make_examples(IMAGES)
    spec = spec_of(model)
    start = params_of(model, spec)
    update = train_locally(
        model, start, examples, IMAGES, TrainConfig(steps=1, batch_size=40, momentum=0),
        local=LocalSettings(), learning_rate=0.5, mask=None,
        rng=np.random.default_rng(0), weight_form=form,
    )  # fmt: skip

    set_params(model, spec, start)
    with WeightRounding(list(model.parameters()), form).applied():
        inputs, targets = tensors_of(examples, IMAGES, torch.device("cpu"))
        loss = mean_loss(model(inputs), targets, IMAGES.task)
        grads = torch.autograd.grad(loss, list(model.parameters()))
    expected = -0.5 * torch.cat([grad.reshape(-1) for grad in grads]).numpy()
    np.testing.assert_allclose(update.delta, expected, rtol=1e-4, atol=1e-6)
    assert update.loss == pytest.approx(loss.item(), rel=1e-5)


def test_frozen_parameters_stay() -> None:
    model = make_model(ModelName.cnn)
    next(model.parameters()).requires_grad_(False)
    spec = spec_of(model)
    update = train(model, IMAGES, TrainConfig())
    assert not update.delta[spec.num_trainable :].any()
    assert update.delta[: spec.num_trainable].any()


def test_mixed_precision_without_a_gpu_is_float32() -> None:
    model = make_model(ModelName.cnn)
    params = params_of(model, spec_of(model))
    one, other = (
        train(model, IMAGES, TrainConfig(precision=precision), params=params)
        for precision in Precision
    )
    assert one.delta.tobytes() == other.delta.tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", Precision)
def test_a_gpu_learns_nearly_the_same(precision: Precision) -> None:
    model = make_model(ModelName.cnn)
    params = params_of(model, spec_of(model))
    config = TrainConfig(precision=precision, epochs=1)
    expected = train(model, IMAGES, config, params=params).delta
    found = train_locally(
        model,
        params,
        make_examples(IMAGES),
        IMAGES,
        config,
        local=LocalSettings(),
        learning_rate=config.learning_rate,
        mask=None,
        rng=np.random.default_rng(0),
        device="cuda",
    ).delta
    # bfloat16 has 8 significant bits.
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


def test_a_model_that_diverges_is_refused_with_a_remedy() -> None:
    config = TrainConfig(learning_rate=1e30, epochs=3)
    with pytest.raises(ValueError, match=r"lower train\.learning_rate"):
        train(make_model(ModelName.mlp), TABLE, config)


def test_augmentation_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.augment"):
        train(make_model(ModelName.mlp), TABLE, TrainConfig(augment=Augmentation.flip))


def test_a_device_without_examples_is_refused() -> None:
    none = make_examples(TABLE, 0)
    with pytest.raises(DataError, match="no examples"):
        train(make_model(ModelName.mlp), TABLE, TrainConfig(), examples=none)


def test_parameters_of_the_wrong_size_are_refused() -> None:
    model = make_model(ModelName.mlp)
    with pytest.raises(ValueError, match="need shape"):
        train(model, TABLE, TrainConfig(), params=np.zeros(3, np.float32))


@pytest.mark.parametrize("size_change", [0, 1])
def test_a_mask_that_does_not_fit_is_refused(size_change: int) -> None:
    model = make_model(ModelName.mobilenet)
    mask = np.zeros(spec_of(model).size + size_change, np.bool_)
    with pytest.raises(ValueError, match="mask"):
        train(model, IMAGES, TrainConfig(), mask=mask)


def test_the_network_can_be_used_after_training() -> None:
    model = make_model(ModelName.cnn)
    spec = spec_of(model)
    update = train(model, IMAGES, TrainConfig())
    set_params(model, spec, update.delta)
    np.testing.assert_array_equal(params_of(model, spec), update.delta)
    storages = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    assert len(storages) == len(list(model.parameters()))
