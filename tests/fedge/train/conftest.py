"""One thread: more of them only wait for each other in models this small."""

import torch

torch.set_num_threads(1)
