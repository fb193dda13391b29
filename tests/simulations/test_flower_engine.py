"""The demo in Flower's own simulation runtime: same model, same errors."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedge.errors import ConfigError, RoundAbortedError
from server.events import LogObserver
from server.settings import compose_experiment
from server.setup import prepare
from simulations.devices import make_devices
from simulations.federation import simulate_federation
from simulations.flower_engine import run_on_flower
from tests.ray_zombies import reap_zombies

DEMO = ["run=quick", "run.rounds=2", "model=mlp", "fleet.num_devices=5"]
DEMO += ["compression=none", "engine.batching=never", "release=none"]

# Ray leaves files and processes to the garbage collector.


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    reap_zombies()


def run(overrides: list[str], folder: Path) -> None:
    setup = prepare(compose_experiment([*DEMO, "engine=flower", *overrides]))
    folder.mkdir()
    run_on_flower(setup, make_devices(setup, folder), folder, LogObserver())


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_flowers_runtime_ends_in_the_same_model(tmp_path: Path) -> None:
    simulate_federation(compose_experiment(DEMO), tmp_path / "local")
    run([], tmp_path / "flower")
    digests = {
        hashlib.sha256((tmp_path / kind / "last.safetensors").read_bytes()).hexdigest()
        for kind in ("local", "flower")
    }
    assert len(digests) == 1


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_server_apps_error_comes_out_as_it_is(tmp_path: Path) -> None:
    losing = ["faults.drop=0.9", "run.min_answers=5", "run.max_attempts=1"]
    with pytest.raises(RoundAbortedError, match="failed 1 time"):
        run([*losing, "secagg=off"], tmp_path / "flower")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("engine.workers=0", "engine.workers"),
        ("engine.client_seconds=1", "engine.client_seconds"),
        ("engine.memory_mb=100", "engine.memory_mb"),
        ("engine.ray_address=auto", "engine.ray_address"),
        ("faults.disk_full_round=1", "faults.disk_full_round"),
        ("fleet=phones", "fleet"),
    ],
)
def test_what_only_other_engines_can_do_is_refused(
    tmp_path: Path, setting: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=f"{says}: cannot be had in Flower's runtime"):
        run([setting], tmp_path / "flower")
