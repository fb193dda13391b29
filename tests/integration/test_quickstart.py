"""A plain Flower app with secure aggregation in two lines, in three runtimes."""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedge.flower import simulate
from tests.integration.flower_processes import Flower

pytestmark = pytest.mark.integration

APP = Path(__file__).parent / "quickstart"


def run_config(result: Path, min_cohort: int) -> str:
    return f'result="{result}" min-cohort={min_cohort}'


def check(result: Path) -> None:
    record = json.loads(result.read_text("utf-8"))
    assert record["accuracy"] > 0.8, "two rounds of real training"
    assert record["losses"][1] < record["losses"][0] < 2.3


def test_on_local_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from quickstart_app.client_app import (  # type: ignore[import-not-found]
        app as client_app,
    )
    from quickstart_app.server_app import (  # type: ignore[import-not-found]
        app as server_app,
    )

    config: dict[str, bool | int | float | str] = {
        "result": str(tmp_path / "result"),
        "min-cohort": 5,
        "num-server-rounds": 2,
    }
    simulate(server_app, client_app, num_clients=5, run_config=config)
    for name in [name for name in sys.modules if name.startswith("quickstart_app")]:
        monkeypatch.delitem(sys.modules, name)
    check(tmp_path / "result")


def test_in_flowers_simulation(
    flower: Flower,
    stack: ExitStack,
    free_port: Callable[[], int],
    wait_for_port: Callable[[int], None],
    tmp_path: Path,
) -> None:
    port = free_port()
    flower.connect("sim", f'address = "127.0.0.1:{port}"\ninsecure = true')
    command = ["flower-superlink", "--insecure", "--simulation", "--port", str(port)]
    command += ["--disable-runtime-dependency-installation"]
    stack.enter_context(flower.process("superlink", command))
    wait_for_port(port)
    output = flower.run_app(
        "sim",
        run_config(tmp_path / "result", 5),
        "--federation-config",
        "num-supernodes=5",
        app=APP,
    )
    assert (tmp_path / "result").exists(), output
    check(tmp_path / "result")


def test_on_three_supernodes(
    flower: Flower,
    stack: ExitStack,
    free_port: Callable[[], int],
    wait_for_port: Callable[[int], None],
    tmp_path: Path,
) -> None:
    port = free_port()
    flower.connect("link", f'address = "127.0.0.1:{port}"\ninsecure = true')
    command = ["flower-superlink", "--insecure", "--port", str(port)]
    command += ["--disable-runtime-dependency-installation"]
    stack.enter_context(flower.process("superlink", command))
    wait_for_port(port)
    for index in range(3):
        supernode = ["flower-supernode", "--insecure"]
        supernode += ["--superlink", f"127.0.0.1:{port}", "--port", str(free_port())]
        config = f"partition-id={index} num-partitions=3 secagg-min-cohort=3"
        supernode += ["--node-config", config]
        stack.enter_context(flower.process(f"supernode-{index}", supernode))
    output = flower.run_app("link", run_config(tmp_path / "result", 3), app=APP)
    assert (tmp_path / "result").exists(), output
    check(tmp_path / "result")
