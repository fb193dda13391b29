"""An unmodified Flower app at the engine benchmark's work, on fedge's simulator.

The app in `flower_peer/`, which knows nothing of fedge, run by `python -m
fedge.simulate` in a child process. It notes its rounds' seconds itself, as it does in
Flower's runtime (`flower_runtime`).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from simulations.benchmarks.flower_runtime import APP, REPOSITORY, FlowerRun
from simulations.benchmarks.memory import watch_memory
from simulations.benchmarks.workload import NUM_CLIENTS


def run_plain(model: str, *, num_rounds: int, num_workers: int = 2) -> FlowerRun:
    """Run the app in child processes and return what it took.

    Args:
        model: see `workload.make_model`.
        num_rounds: >= 2; the first one does not count.
        num_workers: processes that run clients.

    Raises:
        RuntimeError: the run failed; the message has its output.
    """
    with tempfile.TemporaryDirectory() as name:
        timings = Path(name) / "timings.json"
        config = f'model="{model}" num-server-rounds={num_rounds} timings="{timings}"'
        command = [sys.executable, "-m", "fedge.simulate", str(APP)]
        command += ["--clients", str(NUM_CLIENTS), "--workers", str(num_workers)]
        command += ["--run-config", config]
        child = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with watch_memory(child.pid) as peak:
            output, _ = child.communicate()
        if child.returncode or not timings.exists():
            raise RuntimeError(f"the app failed:\n{output}")
        seconds: list[float] = json.loads(timings.read_text("utf-8"))["seconds"]
    return FlowerRun(model, statistics.median(seconds[1:]), seconds, peak.num_bytes)
