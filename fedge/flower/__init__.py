"""The only room that imports Flower: records, the Grid and its layers, the adapter.

A layer is a Grid that wraps a Grid. They stack, for example
`PlainSum(Telemetry(Faults(LocalGrid(client_app, num_clients=20))))`.
"""

from fedge.flower.batching import Stacked, together
from fedge.flower.faults import Faults
from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.local_grid import LocalGrid
from fedge.flower.plain_sum import PlainSum
from fedge.flower.ray_grid import RayGrid
from fedge.flower.recorder import Recorder
from fedge.flower.secure_client import secure_mod
from fedge.flower.secure_sum import SecureSum
from fedge.flower.simulate import simulate
from fedge.flower.telemetry import Telemetry, Traffic
from fedge.flower.virtual_fleet import VirtualFleet

__all__ = [
    "Faults",
    "GridLayer",
    "LocalGrid",
    "PlainSum",
    "RayGrid",
    "Recorder",
    "SecureSum",
    "Stacked",
    "Telemetry",
    "Traffic",
    "VirtualFleet",
    "secure_mod",
    "simulate",
    "stream_replies",
    "together",
]
