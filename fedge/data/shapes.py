"""Circles, squares and triangles on noisy images: a detection task without files.

Drawn from a seed, so every process has the very same images and nothing is downloaded.
Brightness, size and place of an object, the light falling over the image, and the
noise are random; objects do not touch.
"""

from pathlib import Path

import numpy as np

from fedge.arrays import Bool, Float32, UInt8
from fedge.config import DataKind, Task
from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
from fedge.data.standardize import standardization
from fedge.runtime.boxes import NO_OBJECT, TARGET_SIZE, overlaps

NAMES = ("circle", "square", "triangle")
NUM_TRAIN, NUM_TEST = 1600, 400
SIDE = 32  # pixels
MAX_OBJECTS = 3
_SMALLEST, _LARGEST = 8, 14  # pixels
_NOISE = 12.0  # standard deviation, of 255
_TRIES = 20  # to find a free place


def load_shapes(root: Path | None = None) -> FederatedData:
    """Return 1,600 training and 400 test images, uint8, shape (n, 1, 32, 32).

    Args:
        root: not used; every built-in loader has this signature.
    """
    train, test = draw_shapes(NUM_TRAIN, seed=0), draw_shapes(NUM_TEST, seed=1)
    info = DataInfo(
        name="shapes",
        kind=DataKind.image,
        task=Task.detection,
        input_shape=(1, SIDE, SIDE),
        num_outputs=len(NAMES),
        output_names=NAMES,
        normalization=standardization(train.features),
    )
    return FederatedData(info, train, test, NOBODY)


def draw_shapes(count: int, *, seed: int) -> Examples:
    """Return images with one to three objects each.

    Guarantee: equal arguments give equal images; the boxes of an image do not overlap,
    and each is the smallest that holds its object.

    Args:
        count: how many images.
        seed: of all that is random, >= 0.

    Returns:
        uint8 images (n, 1, 32, 32), and targets float32 (n, 3, 5); see
        `fedge.runtime.boxes`.
    """
    rng = np.random.default_rng(seed)
    images = np.empty((count, 1, SIDE, SIDE), np.uint8)
    targets = np.zeros((count, MAX_OBJECTS, TARGET_SIZE), np.float32)
    targets[..., 0] = NO_OBJECT
    for image, wanted in zip(images, targets, strict=True):
        image[0] = _drawn(wanted, rng)
    return Examples(images, targets)


def _drawn(targets: Float32, rng: np.random.Generator) -> UInt8:
    """Return an image, and write what is on it into `targets`."""
    slope = rng.uniform(-1.0, 1.0, 2)
    light = np.add.outer(np.arange(SIDE) * slope[0], np.arange(SIDE) * slope[1])
    ground = rng.uniform(60.0, 195.0)
    pixels = ground + light + rng.normal(0.0, _NOISE, (SIDE, SIDE))
    for place in range(int(rng.integers(1, MAX_OBJECTS, endpoint=True))):
        box = _free_box(targets[:place], rng)
        if box is None:
            break
        label = int(rng.integers(len(NAMES)))
        x, y, side = box
        inside = _SHAPES[label](side)
        contrast = rng.uniform(45.0, 90.0) * rng.choice([-1.0, 1.0])
        pixels[y : y + side, x : x + side][inside] += contrast
        targets[place] = [label, *(np.array([x, y, x + side, y + side]) / SIDE)]
    image: UInt8 = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return image


def _free_box(
    targets: Float32, rng: np.random.Generator
) -> tuple[int, int, int] | None:
    """Return x, y and side, in pixels, of a box that no other one overlaps."""
    for _ in range(_TRIES):
        side = int(rng.integers(_SMALLEST, _LARGEST, endpoint=True))
        x, y = rng.integers(0, SIDE - side, 2, endpoint=True).tolist()
        box = np.array([[x, y, x + side, y + side]]) / SIDE
        if not overlaps(box, targets[:, 1:]).any():
            return x, y, side
    return None


def _circle(side: int) -> Bool:
    offsets = np.arange(side) - (side - 1) / 2
    inside: Bool = np.add.outer(offsets**2, offsets**2) <= (side / 2) ** 2
    return inside


def _square(side: int) -> Bool:
    return np.ones((side, side), np.bool_)


def _triangle(side: int) -> Bool:
    """Return a triangle that stands on its base."""
    offsets = np.abs(np.arange(side) - (side - 1) / 2)
    inside: Bool = offsets[None] <= (np.arange(1, side + 1)[:, None]) / 2
    return inside


_SHAPES = (_circle, _square, _triangle)
