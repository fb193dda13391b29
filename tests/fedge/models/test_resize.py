"""Networks made narrower by shapes alone, and shapes that strangers make up."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedge.compress.structured import narrowed
from fedge.config import DataKind, ModelConfig, ModelName, Task
from fedge.data.dataset import DataInfo
from fedge.errors import ConfigError
from fedge.models.build import build_model
from fedge.models.resize import resize, shapes_of
from fedge.models.vector import params_of, set_params, spec_of
from fedge.runtime.preprocess import Normalization

IMAGE = DataInfo(
    "image",
    DataKind.image,
    Task.classification,
    (1, 8, 8),
    4,
    ("a", "b", "c", "d"),
    Normalization(mean=(0.5,), std=(0.5,)),
)
TEXT = DataInfo(
    "text",
    DataKind.text,
    Task.next_token,
    (6,),
    7,
    tuple("abcdefg"),
    Normalization(),
)

OBJECTS = replace(IMAGE, task=Task.detection)
TEXT_NETS = (ModelName.gru, ModelName.lstm, ModelName.transformer)


def built(name: ModelName) -> tuple[torch.nn.Module, DataInfo]:
    info = {**dict.fromkeys(TEXT_NETS, TEXT), ModelName.detector: OBJECTS}.get(
        name, IMAGE
    )
    config = ModelConfig(name=name, widths=[8, 12, 12], hidden=16)
    return build_model(config, info, seed=3), info


@pytest.mark.parametrize(
    "name", sorted(set(ModelName) - {ModelName.logistic, ModelName.cnn1d})
)
def test_shapes_and_values_are_all_that_makes_a_smaller_network(
    name: ModelName,
) -> None:
    model, info = built(name)
    inputs = np.zeros((3, *info.input_shape), np.float32)
    inputs = info.normalization.apply(inputs)
    smaller = narrowed(model, inputs, share=0.5)
    assert spec_of(smaller).size < spec_of(model).size
    rebuilt = resize(built(name)[0], shapes_of(smaller), info)
    spec = spec_of(rebuilt)
    assert spec == spec_of(smaller)
    set_params(rebuilt, spec, params_of(smaller, spec))
    batch = torch.from_numpy(inputs)
    with torch.no_grad():
        expected, found = smaller.eval()(batch), rebuilt.eval()(batch)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-6)


def test_a_network_keeps_its_shapes_if_they_are_those_it_has() -> None:
    model, info = built(ModelName.cnn)
    before = shapes_of(model)
    assert shapes_of(resize(model, before, info)) == before


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("0.weight", (9, 1, 3, 3), "at most"),
        ("0.weight", (0, 1, 3, 3), "at most"),
        ("0.weight", (8, 1, 3), "at most"),
        ("0.weight", (4, 1, 3, 3), "do not fit together"),
        ("0.bias", (4,), "do not fit together"),
        ("nonsense", (4,), "not in both"),
    ],
)
def test_shapes_that_make_no_network_are_refused(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    model, info = built(ModelName.cnn)
    shapes = {**shapes_of(model), name: shape}
    with pytest.raises(ConfigError, match=message):
        resize(model, shapes, info)


def test_a_missing_shape_is_refused() -> None:
    model, info = built(ModelName.cnn)
    shapes = shapes_of(model)
    del shapes["0.bias"]
    with pytest.raises(ConfigError, match=r"'0\.bias' is not in both"):
        resize(model, shapes, info)


def test_a_layer_of_another_kind_cannot_be_resized() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 1), torch.nn.GroupNorm(2, 4), torch.nn.Flatten()
    )
    shapes = {**shapes_of(model), "1.weight": (2,), "1.bias": (2,)}
    with pytest.raises(ConfigError, match="GroupNorm, which cannot be resized"):
        resize(model, shapes, IMAGE)
