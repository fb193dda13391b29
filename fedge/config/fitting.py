"""Which models and augmentations go with which kind of data: one table each.

In here, and not beside the models, so that a combination that cannot work is refused
before PyTorch is imported.
"""

from collections.abc import Mapping
from types import MappingProxyType

from fedge.config.data import DataKind
from fedge.config.model import ModelName
from fedge.config.train import Augmentation

MODELS_BY_KIND: Mapping[DataKind, tuple[ModelName, ...]] = MappingProxyType(
    {
        DataKind.image: (
            ModelName.cnn,
            ModelName.mobilenet,
            ModelName.mlp,
            ModelName.logistic,
        ),
        DataKind.signal: (ModelName.cnn1d, ModelName.mlp, ModelName.logistic),
        DataKind.table: (ModelName.mlp, ModelName.logistic),
        DataKind.text: (ModelName.gru,),
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
