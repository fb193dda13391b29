"""Which models and augmentations go with which data: one table each.

In here, and not beside the models, so that a combination that cannot work is refused
before PyTorch is imported.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fedge.config.data import DataKind, Task
from fedge.config.model import ModelName
from fedge.config.train import Augmentation

# For every task but detection.
MODELS_BY_KIND: Mapping[DataKind, tuple[ModelName, ...]] = MappingProxyType(
    {
        DataKind.image: (
            ModelName.cnn,
            ModelName.mobilenet,
            ModelName.mobilenet_v2,
            ModelName.mobilenet_v3,
            ModelName.squeezenet,
            ModelName.mlp,
            ModelName.logistic,
        ),
        DataKind.signal: (ModelName.cnn1d, ModelName.mlp, ModelName.logistic),
        DataKind.table: (ModelName.mlp, ModelName.logistic),
        DataKind.text: (ModelName.gru, ModelName.lstm, ModelName.transformer),
    }
)

AUGMENTATIONS_BY_KIND: Mapping[DataKind, tuple[Augmentation, ...]] = MappingProxyType(
    {
        DataKind.image: (
            Augmentation.none,
            Augmentation.shift,
            Augmentation.flip,
            Augmentation.noise,
        ),
        DataKind.signal: (Augmentation.none, Augmentation.shift, Augmentation.noise),
        DataKind.table: (Augmentation.none, Augmentation.noise),
        DataKind.text: (Augmentation.none,),
    }
)

_DETECTORS = (ModelName.detector,)
_MOVES_NOTHING = (Augmentation.none, Augmentation.noise)


def fitting_models(kind: DataKind, task: Task) -> tuple[ModelName, ...]:
    """Return the reference models for such data; none where a task has none."""
    if task is Task.detection:
        return _DETECTORS if kind is DataKind.image else ()
    return MODELS_BY_KIND[kind]


def fitting_augmentations(kind: DataKind, task: Task) -> tuple[Augmentation, ...]:
    """Return the augmentations for such data; boxes stay where they are."""
    fitting = AUGMENTATIONS_BY_KIND[kind]
    if task is Task.detection:
        return tuple(how for how in fitting if how in _MOVES_NOTHING)
    return fitting
