"""A network, and one example of what it takes, for backends with a fixed batch size."""

import copy

import numpy as np
import torch

from fedge.arrays import AnyArray


class _Named(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.network(inputs)
        return outputs


def one_example(
    module: torch.nn.Module, inputs: AnyArray
) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a copy of the network in evaluation mode, and the first input.

    A copy, because tracing may touch a network; in the plain memory layout, since a
    channels-last weight is exported with transpositions around it; and inside another
    module, because ExecuTorch 1.4.1 loses arrays whose names begin with a digit, as
    those of a `torch.nn.Sequential` do.

    Args:
        module: the network.
        inputs: float32 or int64, shape (n, ...), n >= 1.

    Returns:
        The copy, and a tensor of shape (1, ...).
    """
    twin = copy.deepcopy(module).eval()
    with torch.no_grad():
        for value in (*twin.parameters(), *twin.buffers()):
            value.data = value.data.contiguous()
    return _Named(twin).eval(), torch.from_numpy(np.array(inputs[:1]))
