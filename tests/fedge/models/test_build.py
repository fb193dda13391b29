"""Which models are built for which data, and that they are built reproducibly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedge.config import DataKind, ModelConfig, ModelName, Task
from fedge.config.fitting import MODELS_BY_KIND
from fedge.data.dataset import DataInfo
from fedge.errors import ConfigError
from fedge.models.build import build_model
from fedge.models.vector import params_of, spec_of
from fedge.runtime.preprocess import Normalization

SHAPES = {
    DataKind.image: (3, 9, 8),
    DataKind.signal: (2, 17),
    DataKind.table: (5,),
    DataKind.text: (6,),
}


def make_info(kind: DataKind, task: Task | None = None, outputs: int = 4) -> DataInfo:
    text = kind is DataKind.text
    return DataInfo(
        name=f"some {kind}",
        kind=kind,
        task=task or (Task.next_token if text else Task.classification),
        input_shape=SHAPES[kind],
        num_outputs=outputs,
        output_names=tuple("abcd"[:outputs]),
        normalization=Normalization() if text else Normalization((0.0,), (1.0,)),
    )


def make_config(name: ModelName) -> ModelConfig:
    return ModelConfig(name=name, widths=[4, 6], hidden=8, dropout=0.2)


def make_batch(info: DataInfo, size: int) -> torch.Tensor:
    if info.kind is DataKind.text:
        return torch.zeros(size, *info.input_shape, dtype=torch.int64)
    return torch.zeros(size, *info.input_shape)


PAIRS = [(kind, name) for kind, names in MODELS_BY_KIND.items() for name in names]
MISFITS = [(k, n) for k in DataKind for n in ModelName if n not in MODELS_BY_KIND[k]]


def linear_builder(info: DataInfo) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SHAPES[info.kind][0], 4))


def double_builder(info: DataInfo) -> nn.Module:
    return linear_builder(info).double()


def no_builder(info: DataInfo) -> str:
    return info.name


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_a_fitting_model_gives_one_row_of_logits_for_each_prediction(
    kind: DataKind, name: ModelName
) -> None:
    info = make_info(kind)
    model = build_model(make_config(name), info, seed=0)
    outputs = model(make_batch(info, 3))
    assert outputs.shape == ((3, 6, 4) if kind is DataKind.text else (3, 4))
    assert outputs.dtype == torch.float32


@pytest.mark.parametrize("name", MODELS_BY_KIND[DataKind.table])
def test_regression_has_one_output_column(name: ModelName) -> None:
    info = make_info(DataKind.table, Task.regression, outputs=1)
    model = build_model(make_config(name), info, seed=0)
    assert model(make_batch(info, 3)).shape == (3, 1)


IMAGE_NETS = [
    ModelName.cnn,
    ModelName.mobilenet,
    ModelName.mobilenet_v2,
    ModelName.mobilenet_v3,
    ModelName.squeezenet,
]


@pytest.mark.parametrize("name", IMAGE_NETS)
@pytest.mark.parametrize("widths", [[1], [4, 6], [5, 5, 7, 7]])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 5, 20), (1, 28, 28)])
def test_image_models_take_any_size(
    name: ModelName, widths: list[int], shape: tuple[int, ...]
) -> None:
    info = make_info(DataKind.image)
    info = DataInfo(
        "x", info.kind, info.task, shape, 4, info.output_names, info.normalization
    )
    config = ModelConfig(name=name, widths=widths, hidden=8)
    model = build_model(config, info, seed=0).eval()
    assert model(make_batch(info, 2)).shape == (2, 4)


def test_a_cnn_pools_after_every_so_many_convolutions() -> None:
    config = ModelConfig(widths=[4, 4, 6, 6], hidden=8, pool_every=2)
    model = build_model(config, make_info(DataKind.image), seed=0)
    assert isinstance(model, nn.Sequential)
    kinds = [type(part) for part in model if not isinstance(part, nn.ReLU)]
    assert kinds[:6] == [nn.Conv2d, nn.Conv2d, nn.MaxPool2d] * 2


@pytest.mark.parametrize(
    ("side", "cells"), [(1, 1), (8, 8), (15, 15), (16, 8), (28, 14), (32, 8), (128, 16)]
)
def test_a_detector_answers_for_at_least_eight_cells_a_side(
    side: int, cells: int
) -> None:
    info = replace(
        make_info(DataKind.image, Task.detection), input_shape=(3, side, side)
    )
    model = build_model(make_config(ModelName.detector), info, seed=0)
    assert model(make_batch(info, 2)).shape == (2, 5 + 4, cells, cells)


@pytest.mark.parametrize("kind", set(DataKind) - {DataKind.image})
def test_objects_are_not_looked_for_in_what_is_no_image(kind: DataKind) -> None:
    info = make_info(kind, Task.detection)
    with pytest.raises(ConfigError, match=r"detector .* your own"):
        build_model(make_config(ModelName.detector), info, seed=0)


@pytest.mark.parametrize("name", [ModelName.gru, ModelName.lstm, ModelName.transformer])
def test_a_language_model_does_not_see_what_it_predicts(name: ModelName) -> None:
    info = make_info(DataKind.text)
    model = build_model(make_config(name), info, seed=0).eval()
    tokens = make_batch(info, 1)
    changed = tokens.clone()
    changed[:, 3] = 1
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0.0, atol=1e-6)
    assert not torch.allclose(before[:, 3:], after[:, 3:], rtol=0.0, atol=1e-6)


def test_a_transformer_reads_the_order_of_the_tokens() -> None:
    info = make_info(DataKind.text)
    model = build_model(make_config(ModelName.transformer), info, seed=0).eval()
    tokens = torch.tensor([[0, 1, 2, 3, 0, 1], [1, 0, 2, 3, 0, 1]])
    with torch.no_grad():
        one, other = model(tokens)[:, -1]
    assert not torch.allclose(one, other, rtol=0.0, atol=1e-6)


def test_a_text_longer_than_the_transformer_was_built_for_is_refused() -> None:
    info = make_info(DataKind.text)
    model = build_model(make_config(ModelName.transformer), info, seed=0)
    with pytest.raises(RuntimeError, match="must match"):
        model(torch.zeros(1, 7, dtype=torch.int64))


@pytest.mark.parametrize(("kind", "name"), MISFITS)
def test_a_model_that_does_not_fit_is_refused_by_name(
    kind: DataKind, name: ModelName
) -> None:
    with pytest.raises(ConfigError, match=rf"model\.name: {name} .* {kind}") as caught:
        build_model(make_config(name), make_info(kind), seed=0)
    assert all(fitting in str(caught.value) for fitting in MODELS_BY_KIND[kind])


def test_a_task_that_no_reference_model_does_is_refused() -> None:
    info = make_info(DataKind.text, Task.classification)
    with pytest.raises(ConfigError, match=r"data\.task"):
        build_model(make_config(ModelName.gru), info, seed=0)


def test_a_shape_that_is_not_of_its_kind_is_refused() -> None:
    info = DataInfo(
        "flat", DataKind.image, Task.classification, (64,), 2, (), Normalization()
    )
    with pytest.raises(ConfigError, match="3 axes"):
        build_model(make_config(ModelName.cnn), info, seed=0)


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_the_seed_alone_decides_the_first_weights(
    kind: DataKind, name: ModelName
) -> None:
    info, config = make_info(kind), make_config(name)
    torch.manual_seed(1)
    one = build_model(config, info, seed=5)
    torch.manual_seed(2)
    same, other = (build_model(config, info, seed=seed) for seed in (5, 6))
    spec = spec_of(one)
    np.testing.assert_array_equal(params_of(one, spec), params_of(same, spec))
    assert not np.array_equal(params_of(one, spec), params_of(other, spec))


def test_torchs_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build_model(make_config(ModelName.cnn), make_info(DataKind.image), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_builder_of_an_allowed_package_is_used() -> None:
    config = ModelConfig(builder="torch.nn:Identity")
    info = make_info(DataKind.table)
    assert isinstance(build_model(config, info, seed=0, allow=["torch"]), nn.Identity)


def test_a_builder_of_another_package_is_refused() -> None:
    config = ModelConfig(builder="torch.nn:Identity")
    with pytest.raises(ConfigError, match=r"model\.builder.*allowed"):
        build_model(config, make_info(DataKind.table), seed=0)


@pytest.mark.parametrize(
    ("builder", "reason"),
    [("no_builder", "need a torch.nn.Module"), ("double_builder", "float64")],
)
def test_a_builder_that_returns_no_float32_network_is_refused(
    builder: str, reason: str
) -> None:
    config = ModelConfig(builder=f"{__name__}:{builder}")
    with pytest.raises(ConfigError, match=reason):
        build_model(config, make_info(DataKind.table), seed=0, allow=[__name__])
