"""What the README shows works as shown, in a copy of the repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.settings import compose_experiment, expand_sweep

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SOURCES = ("clients", "conf", "fedge", "server", "simulations", "strategies")
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [
    line
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
    if line.startswith("python -m simulations.run ")
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, with the README's own files written into it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, folder / name)
    for _, text in BLOCKS:
        if match := re.match(r"# file: (\S+)\n", text):
            path = folder / match[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder


def run(checkout: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_at_most_fifteen_lines_long() -> None:
    code = [[line for line in text.splitlines() if line.strip()] for text in PYTHON]
    imports = ("import ", "from ", "#")
    for lines in code:
        assert len([line for line in lines if not line.startswith(imports)]) <= 15


@pytest.mark.parametrize("command", [c for c in COMMANDS if "my_lab" not in c])
def test_the_settings_of_every_command_are_accepted(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDGE_DATA_ROOT", "/data")
    overrides = [text for text in shlex.split(command)[3:] if not text.startswith("-")]
    for combination in expand_sweep(overrides):
        assert "data=light" in combination or compose_experiment(combination)


@pytest.mark.integration
@pytest.mark.parametrize("command", [c for c in COMMANDS if "my_lab" in c])
def test_a_data_set_and_a_strategy_of_ones_own_run(
    command: str, checkout: Path
) -> None:
    output = run(checkout, *shlex.split(command)[1:])
    assert "Everything of this run is in" in output


@pytest.mark.integration
def test_a_flower_app_runs_on_local_grid_plain_and_secure(checkout: Path) -> None:
    examples = [text for text in PYTHON if "simulate(server_app" in text]
    assert len(examples) == 2, "one plain, one secure"
    for example in examples:
        run(checkout, "-c", example)


@pytest.mark.integration
def test_the_shipped_model_is_loaded_and_runs(checkout: Path) -> None:
    run(checkout, "-m", "simulations.run", "run=quick", "model=mlp", "train.epochs=2")
    (example,) = [text for text in PYTHON if "load_installed" in text]
    predicted, actual = re.findall(r"\[([\d ]+)\]", run(checkout, "-c", example))
    assert predicted.split()[0] == actual.split()[0] == "0"


@pytest.mark.integration
def test_a_fleet_is_provisioned_as_shown(checkout: Path) -> None:
    (example,) = [text for text in PYTHON if "provision(" in text]
    run(checkout, "-c", example)
    assert (checkout / "outputs" / "device" / "trust" / "root.json").exists()
