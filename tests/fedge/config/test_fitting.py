"""The tables of what fits what are complete."""

import pytest

from fedge.config import Augmentation, DataKind, ModelName, Task
from fedge.config.fitting import (
    AUGMENTATIONS_BY_KIND,
    MODELS_BY_KIND,
    fitting_augmentations,
    fitting_models,
)


@pytest.mark.parametrize("kind", DataKind)
def test_every_kind_of_data_has_a_model_and_may_go_unaugmented(kind: DataKind) -> None:
    assert MODELS_BY_KIND[kind]
    assert Augmentation.none in AUGMENTATIONS_BY_KIND[kind]


@pytest.mark.parametrize("kind", DataKind)
def test_nothing_is_listed_twice(kind: DataKind) -> None:
    assert len(set(MODELS_BY_KIND[kind])) == len(MODELS_BY_KIND[kind])
    listed = AUGMENTATIONS_BY_KIND[kind]
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("model", ModelName)
def test_every_model_fits_some_data(model: ModelName) -> None:
    assert any(model in fitting_models(k, t) for k in DataKind for t in Task)


@pytest.mark.parametrize("augmentation", Augmentation)
def test_every_augmentation_fits_some_data(augmentation: Augmentation) -> None:
    assert any(augmentation in fitting for fitting in AUGMENTATIONS_BY_KIND.values())


def test_objects_are_found_in_images_only_and_by_detectors_only() -> None:
    assert fitting_models(DataKind.image, Task.detection) == (ModelName.detector,)
    for kind in set(DataKind) - {DataKind.image}:
        assert fitting_models(kind, Task.detection) == ()
    assert ModelName.detector not in fitting_models(DataKind.image, Task.classification)


def test_nothing_moves_under_the_boxes_of_objects() -> None:
    fitting = fitting_augmentations(DataKind.image, Task.detection)
    assert fitting == (Augmentation.none, Augmentation.noise)
