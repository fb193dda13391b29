"""fedge: federated learning for edge devices.

Train on devices, sum securely, compress, sign, push, run. This package is the
library; the applications (`server/`, `clients/`, `simulations/`) are not in the wheel.
"""

import os

# A privacy framework does not phone home: these must be set before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
