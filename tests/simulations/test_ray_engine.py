"""The demo on a Ray cluster: the same model as on this machine alone."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedge.errors import ConfigError
from server.settings import compose_experiment
from server.setup import prepare
from simulations.devices import make_devices
from simulations.federation import simulate_federation
from simulations.ray_engine import clients_of_run, ray_grid
from tests.ray_zombies import reap_zombies

DEMO = ["run=quick", "run.rounds=2", "model=mlp", "fleet.num_devices=5"]
DEMO += ["compression=none", "engine.batching=never"]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    reap_zombies()


@pytest.mark.integration
# Ray leaves files and processes to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ray_cluster_ends_in_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    digests = set()
    for engine in ("local", "ray"):
        folder = tmp_path / engine
        experiment = compose_experiment([*DEMO, f"engine={engine}"])
        simulate_federation(experiment, folder)
        model = (folder / "last.safetensors").read_bytes()
        digests.add(hashlib.sha256(model).hexdigest())
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        assert summary["devices_on_release"] == 5
    assert len(digests) == 1


def test_no_workers_are_refused(tmp_path: Path) -> None:
    setup = prepare(compose_experiment([*DEMO, "engine=ray", "engine.workers=0"]))
    with pytest.raises(ConfigError, match=r"engine\.workers: 0"):
        ray_grid(setup, make_devices(setup, tmp_path))


def test_a_folder_that_a_node_does_not_see_is_told(tmp_path: Path) -> None:
    experiment = compose_experiment([*DEMO, "engine=ray"])
    setup = prepare(experiment)
    devices = replace(make_devices(setup, tmp_path), folder=tmp_path / "elsewhere")
    grid = ray_grid(setup, devices)
    told = grid._settings.arguments  # type: ignore[attr-defined]  # what nodes are told
    with pytest.raises(ConfigError, match="elsewhere is not there"):
        clients_of_run(told)
