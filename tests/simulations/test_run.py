"""The main job, misused: one line says what is wrong, and nothing is left behind."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
WRONG_SETTINGS = 2

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that starts the main job in an empty folder."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    environment.pop("FEDGE_DATA_ROOT", None)

    def start(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: PLW1510 - the exit status is what is tested
            [sys.executable, "-m", "simulations.run", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return start


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run.ronds=3"], "run.ronds: no such setting; did you mean run.rounds?"),
        (["run.rounds=abc"], "run.rounds: Value 'abc'"),
        (["--run", "run.rounds=0"], "run.rounds: 0 must be at least 1"),
        (["data=diabetes"], "model.name: cnn does not fit data=diabetes"),
        (["strategy._target_=os.system"], "'os.system' is not in an allowed package"),
        (
            ["strategy=fedadam", "strategy.learning_rate=abc"],
            "strategy.learning_rate: 'abc' is not a number",
        ),
        (["-m", "strategy=fedavg,fedavgg"], "did you mean strategy=fedavg?"),
        (["-m", "run.seed=interval(0,1)"], "run.seed: nothing to sweep"),
        (["--multirun", "garbage"], "'garbage': not of the form NAME=VALUE"),
        (["run.rounds=1,2"], "run.rounds: 'run.rounds=1,2' names several values"),
        (["run.resume=nowhere"], "/nowhere holds no run (experiment.json cannot be"),
        (["++run.resume=nowhere"], "/nowhere holds no run (experiment.json cannot be"),
        (["run.resume=.", "run.rounds=3"], "leave out run.rounds=3"),
        (["-m", "run.seed=0,1", "run.resume=."], "leave out run.seed=0,1"),
    ],
)
def test_a_mistake_ends_in_one_message_and_no_folder(
    run: Run, tmp_path: Path, arguments: list[str], says: str
) -> None:
    ended = run(arguments)
    assert ended.returncode == WRONG_SETTINGS, ended.stderr
    assert ended.stderr.startswith("ConfigError: ")
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_settings_are_damaged_is_not_resumed_and_not_changed(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "experiment.json").write_text('{"run":{"rounds":')
    ended = run(["run.resume=."])
    assert ended.returncode == WRONG_SETTINGS
    assert ended.stderr.startswith("ConfigError: settings: Invalid JSON")
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.json"]


def test_help_lists_the_groups_and_their_choices(run: Run, tmp_path: Path) -> None:
    ended = run(["--help"])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\nstrategy: fedadagrad, fedadam, fedavg" in ended.stdout
    assert "\ncompression: int8, int8_pruned, none" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_composed_settings_can_be_printed(run: Run, tmp_path: Path) -> None:
    ended = run(["--cfg", "job", "run.rounds=7"])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "rounds: 7" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_does_not_exist_is_refused(run: Run, tmp_path: Path) -> None:
    ended = run(["--rounds", "7"])
    assert ended.returncode == WRONG_SETTINGS
    assert "unrecognized arguments: --rounds" in ended.stderr
    assert list(tmp_path.iterdir()) == []
