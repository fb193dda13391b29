"""Flower's own simulation runtime at the engine benchmark's work, set up well.

    python -m simulations.benchmarks.flower_runtime --model small --rounds 5

Runs the app in `flower_peer/` the documented way: a SuperLink in simulation mode and
`flwr run`, with Ray underneath. Set up well means one actor for each of two processors
(the default gives each actor two), one thread of torch each, and neither logs of the
actors nor telemetry. The app notes its rounds' seconds itself; starting up is not in
them. The memory is that of the SuperLink and all it started.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from simulations.benchmarks.memory import watch_memory
from simulations.benchmarks.workload import MODEL_NAMES, NUM_CLIENTS

APP = Path(__file__).resolve().parent / "flower_peer"
REPOSITORY = Path(__file__).resolve().parents[2]
_BIN = Path(sys.executable).parent
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_RUN_SECONDS = 1800.0
_LINK = "peer"


@dataclass(frozen=True, slots=True)
class FlowerRun:
    """What a run in Flower's runtime took.

    Attributes:
        model: see `workload.make_model`.
        seconds_per_round: median, the first round (which starts actors) left out.
        seconds: of each round, the first one too.
        peak_bytes: PSS of all processes together.
    """

    model: str
    seconds_per_round: float
    seconds: list[float]
    peak_bytes: int


def run_flower(model: str, *, num_rounds: int, num_actors: int = 2) -> FlowerRun:
    """Run the app in child processes and return what it took.

    Guarantee: no process is left behind.

    Args:
        model: see `workload.make_model`.
        num_rounds: >= 2; the first one does not count.
        num_actors: Ray's workers, one processor each.

    Raises:
        RuntimeError: the run failed; the message has its output.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), _free_port()
        environment = _environment(folder, port)
        with (
            _superlink(folder, port, environment) as pid,
            watch_memory(pid) as peak,
        ):
            seconds = _flwr_run(folder, environment, model, num_rounds, num_actors)
    median = statistics.median(seconds[1:])
    return FlowerRun(model, median, seconds, peak.num_bytes)


def _environment(folder: Path, port: int) -> dict[str, str]:
    """Write Flower's configuration; return what its processes need."""
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{_LINK}"\n[superlink.{_LINK}]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@contextmanager
def _superlink(folder: Path, port: int, environment: dict[str, str]) -> Iterator[int]:
    """Run a SuperLink in simulation mode; give its process id."""
    command = [str(_BIN / "flower-superlink"), "--insecure", "--simulation"]
    command += ["--port", str(port), "--disable-runtime-dependency-installation"]
    with (folder / "superlink.log").open("wb") as log:
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for(port)
            yield child.pid
        finally:
            _stop(child)


def _stop(child: subprocess.Popen[bytes]) -> None:
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _flwr_run(
    folder: Path,
    environment: dict[str, str],
    model: str,
    num_rounds: int,
    num_actors: int,
) -> list[float]:
    timings = folder / "timings.json"
    run_config = f'model="{model}" num-server-rounds={num_rounds} timings="{timings}"'
    federation = (
        f"num-supernodes={NUM_CLIENTS} client-resources-num-cpus=1 "
        f"init-args-num-cpus={num_actors} init-args-log-to-driver=false"
    )
    command = [str(_BIN / "flwr"), "run", str(APP), _LINK, "--stream"]
    command += ["--run-config", run_config, "--federation-config", federation]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    if not timings.exists():
        log = (folder / "superlink.log").read_text("utf-8", errors="replace")
        raise RuntimeError(f"Flower's run failed:\n{done.stdout}{done.stderr}{log}")
    seconds: list[float] = json.loads(timings.read_text("utf-8"))["seconds"]
    return seconds


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"no SuperLink on port {port} after {_START_SECONDS:.0f} s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run once and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", choices=MODEL_NAMES, default=MODEL_NAMES[0])
    parser.add_argument("--rounds", type=int, default=5, help="at least 2")
    options = parser.parse_args(arguments)
    print(json.dumps(asdict(run_flower(options.model, num_rounds=options.rounds))))


if __name__ == "__main__":
    main()
