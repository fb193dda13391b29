"""Flower's app bundle holds both apps and what they need, and runs from itself."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

USE_THE_APPS = """
import sys
bundle, repository = sys.argv[1:]
sys.path[:] = [bundle, *(p for p in sys.path if p != repository)]
import server.app, clients.app
from server.settings import compose_experiment
for module in (server.app, clients.app, sys.modules["fedge"]):
    assert module.__file__.startswith(bundle), module.__file__
print(type(server.app.app).__name__, type(clients.app.app).__name__)
print(compose_experiment(["strategy=fedadam"]).strategy["_target_"])
"""


def copy_of_the_repository(folder: Path) -> Path:
    """Copy what git does not ignore to `folder`/fedge."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: what belongs to the repository is unknown")
    copy = folder / "fedge"
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the bundle was unpacked to."""
    folder = tmp_path_factory.mktemp("bundle")
    copy = copy_of_the_repository(folder)
    scripts = Path(sys.executable).parent
    subprocess.run(
        [scripts / "flwr", "build"],
        cwd=copy,
        env=os.environ
        | {"FLWR_HOME": str(folder / "home"), "FLWR_TELEMETRY_ENABLED": "0"},
        check=True,
        capture_output=True,
    )
    [built] = copy.glob("*.fab")
    zipfile.ZipFile(built).extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.parametrize(
    "name",
    ["server/app.py", "clients/app.py", "conf/config.yaml", "strategies/fedavg.py",
     "fedge/arrays.py", "pyproject.toml"],
)  # fmt: skip
def test_a_file_that_the_apps_need_is_in_it(bundle: Path, name: str) -> None:
    assert (bundle / name).is_file()


def test_every_setting_file_is_in_it(bundle: Path) -> None:
    settings = {
        p.relative_to(REPOSITORY) for p in (REPOSITORY / "conf").rglob("*.yaml")
    }
    assert {p.relative_to(bundle) for p in bundle.glob("conf/**/*.yaml")} == settings


def test_tests_benchmarks_and_simulations_stay_at_home(bundle: Path) -> None:
    names = {path.name for path in bundle.rglob("*")}
    assert names.isdisjoint({"tests", "benchmarks", "simulations", "outputs", ".venv"})


def test_the_apps_run_from_the_bundle_alone(bundle: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-c", USE_THE_APPS, str(bundle), str(REPOSITORY)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [
        "ServerApp",
        "ClientApp",
        "strategies.fedadam.FedAdam",
    ]
