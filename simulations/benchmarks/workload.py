"""The work that every contestant of the engine benchmark does: data, models, cohorts.

A thousand clients hold 50 images of 28 x 28 pixels in ten classes each. In a round 50
of them train for one pass over their images, ten at a time and in the order in which
they lie, with plain SGD; the new model is the average of theirs, weighted by examples.

The images are made from a seed: a pattern per class under noise, so that accuracy rises
like it does on real digits. They stay bytes, and become float32 where they are used.

Importing this imports neither fedge nor a framework for federated learning: contestants
run it in environments that do not have both.
"""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from fedge.data.dataset import DataInfo, FederatedData

NUM_CLIENTS = 1000
EXAMPLES_PER_CLIENT = 50
COHORT_SIZE = 50
BATCH_SIZE = 10
LEARNING_RATE = 0.05
NUM_CLASSES = 10
SIDE = 28
NUM_TEST_EXAMPLES = 1000
SEED = 20_26

MODEL_NAMES = ("small", "medium", "cnn", "big")

# Raw bytes to model inputs in [-1, 1].
_MEAN, _STD = 127.5, 127.5


def make_model(name: str) -> nn.Module:
    """Return a model with the weights that every contestant starts from.

    Guarantee: equal names give equal weights; torch's global generators are left as
    they were.

    Args:
        name: "small" (logistic regression, 7,850 parameters), "medium" (one hidden
            layer, 25,450), "cnn" (two convolutions, 185,617) or "big" (two hidden
            layers, 4,902,090).

    Raises:
        ValueError: there is no such model.
    """
    if name not in MODEL_NAMES:
        raise ValueError(f"model: {name!r} is none of {', '.join(MODEL_NAMES)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        return nn.Sequential(*_layers(name))


def _layers(name: str) -> list[nn.Module]:
    match name:
        case "small":
            return _dense(SIDE * SIDE, NUM_CLASSES)
        case "medium":
            return _dense(SIDE * SIDE, 32, NUM_CLASSES)
        case "big":
            return _dense(SIDE * SIDE, 2048, 1600, NUM_CLASSES)
        case _:
            return [
                *_convolution(1, 32),
                *_convolution(32, 64),
                *_dense(64 * 49, 53, 10),
            ]


def _convolution(num_in: int, num_out: int) -> list[nn.Module]:
    return [nn.Conv2d(num_in, num_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]


def _dense(*widths: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    for num_in, num_out in pairwise(widths):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
    return layers[:-1]


def client_batches(index: int) -> list[tuple[Tensor, Tensor]]:
    """Return a client's batches in training order.

    Args:
        index: which client, 0 .. NUM_CLIENTS - 1.

    Returns:
        Images, float32 (10, 1, 28, 28), and classes, int64 (10,), for each batch.
    """
    batches = (torch.split(values, BATCH_SIZE) for values in client_tensors(index))
    return list(zip(*batches, strict=True))


def client_tensors(index: int) -> tuple[Tensor, Tensor]:
    """Return all images of a client, float32 (50, 1, 28, 28), and their classes."""
    pixels, labels = examples()
    first = index * EXAMPLES_PER_CLIENT
    chosen = slice(first, first + EXAMPLES_PER_CLIENT)
    images = (pixels[chosen].astype(np.float32) - np.float32(_MEAN)) / np.float32(_STD)
    return torch.from_numpy(images), torch.from_numpy(labels[chosen])


def draw_cohort(round_index: int) -> list[int]:
    """Return the clients of a round: COHORT_SIZE different ones."""
    rng = np.random.default_rng([SEED, 1, round_index])
    chosen: list[int] = rng.permutation(NUM_CLIENTS)[:COHORT_SIZE].tolist()
    return chosen


@lru_cache(maxsize=1)
def examples() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the clients' images, uint8 (50000, 1, 28, 28), and classes, int64.

    Client i has those from 50 i on. The arrays are made once per process and shared:
    do not write to them.
    """
    return _draw(NUM_CLIENTS * EXAMPLES_PER_CLIENT, part=0)


def _draw(count: int, *, part: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images and classes; `part` 0 trains, 1 tests."""
    rng = np.random.default_rng([SEED, 3, part])
    labels = rng.integers(0, NUM_CLASSES, count)
    # Noise up to 191, so that the sum with a pattern up to 64 fits in a byte.
    pixels = rng.integers(0, 192, (count, 1, SIDE, SIDE), np.uint8)
    for label, pattern in enumerate(_patterns()):
        pixels[labels == label] += pattern
    return pixels, labels


def _patterns() -> NDArray[np.uint8]:
    """Return one per class: squares of 4 x 4 pixels, which convolutions can see."""
    rng = np.random.default_rng([SEED, 2])
    squares = rng.integers(0, 65, (NUM_CLASSES, 1, SIDE // 4, SIDE // 4), np.uint8)
    return np.repeat(np.repeat(squares, 4, axis=2), 4, axis=3)


def load(root: Path | None) -> "FederatedData":
    """Return the same examples as a data set for fedge, with 1,000 more to test on.

    Args:
        root: not used; every loader has this signature.
    """
    from fedge.data.dataset import NOBODY, Examples, FederatedData

    train = Examples(*(array.copy() for array in examples()))
    test = Examples(*_draw(NUM_TEST_EXAMPLES, part=1))
    return FederatedData(_info(), train, test, NOBODY)


def _info() -> "DataInfo":
    from fedge.config import DataKind, Task
    from fedge.data.dataset import DataInfo
    from fedge.runtime.preprocess import Normalization

    return DataInfo(
        name="benchmark",
        kind=DataKind.image,
        task=Task.classification,
        input_shape=(1, SIDE, SIDE),
        num_outputs=NUM_CLASSES,
        output_names=tuple(f"class {index}" for index in range(NUM_CLASSES)),
        normalization=Normalization(mean=(_MEAN,), std=(_STD,)),
    )


def build_small(info: "DataInfo") -> nn.Module:
    """Return the model "small", as `model.builder` wants it."""
    return make_model("small")


def build_medium(info: "DataInfo") -> nn.Module:
    """Return the model "medium", as `model.builder` wants it."""
    return make_model("medium")


def build_cnn(info: "DataInfo") -> nn.Module:
    """Return the model "cnn", as `model.builder` wants it."""
    return make_model("cnn")


def build_big(info: "DataInfo") -> nn.Module:
    """Return the model "big", as `model.builder` wants it."""
    return make_model("big")
