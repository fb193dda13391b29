"""The tables of what fits what are complete."""

import pytest

from fedge.config import Augmentation, DataKind, ModelName
from fedge.config.fitting import AUGMENTATIONS_BY_KIND, MODELS_BY_KIND


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
    assert any(model in models for models in MODELS_BY_KIND.values())


@pytest.mark.parametrize("augmentation", Augmentation)
def test_every_augmentation_fits_some_data(augmentation: Augmentation) -> None:
    assert any(augmentation in fitting for fitting in AUGMENTATIONS_BY_KIND.values())
