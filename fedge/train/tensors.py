"""From raw examples to checked tensors: once per call, not once per batch."""

import torch
from torch import Tensor

from fedge.data.dataset import DataInfo, Examples
from fedge.data.inputs import inputs_of


def tensors_of(
    examples: Examples, info: DataInfo, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return normalized inputs and targets on the device.

    Raises:
        DataError: an example has the wrong shape, or holds a value that is not finite,
            a class or token that does not exist, or a box that is none.
    """
    inputs, targets = inputs_of(examples, info)
    return torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
