"""The fleet's random numbers: functions of the seed and of where they are used."""

import hashlib
from enum import IntEnum

import numpy as np

from fedge.seeding import Purpose, generator


class Draw(IntEnum):
    """What is drawn; the numbers are part of every run, never change them."""

    DEVICE = 0  # what a device is
    OFFSET = 1  # when its day begins
    SIGNAL = 2  # when it comes and goes
    FATE = 3  # where it drops out


def device_rng(
    seed: int, draw: Draw, device: int, *indices: int
) -> np.random.Generator:
    """Return the generator of one device's draw; equal arguments, equal stream."""
    return generator(seed, Purpose.FLEET, int(draw), device, *indices)


def number_of(text: str) -> int:
    """Return a 64-bit number that stands for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
