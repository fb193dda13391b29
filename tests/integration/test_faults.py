"""The main job's coordinator dies or finds its disk full, and the run goes on."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.test_crash import OVERRIDES, check, finish, start, summary_of

pytestmark = [pytest.mark.integration, pytest.mark.crash]

SHORT = (*OVERRIDES, "run.rounds=6")


def end_of(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Return the exit code and what was written to stderr."""
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors.decode()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start(run.parent, *SHORT, f"hydra.run.dir={run}"))
    return summary_of(run)


@pytest.mark.parametrize(
    ("moment", "killed_by"),
    [("committing", signal.SIGXFSZ), ("pushing", signal.SIGKILL)],
)
def test_a_coordinator_that_dies_goes_on_to_the_same_model(
    moment: str, killed_by: int, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    faults = "faults=coordinator_crash", f"faults.crash_coordinator_at={moment}"
    code, _ = end_of(start(tmp_path, *SHORT, *faults, f"hydra.run.dir={run}"))
    assert code == -killed_by
    finish(start(tmp_path, f"run.resume={run}"))
    check(run, undisturbed)


def test_a_full_disk_ends_the_run_with_a_reason_and_it_goes_on(
    undisturbed: dict[str, object], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(tmp_path, *SHORT, "faults=disk_full", f"hydra.run.dir={run}")
    code, errors = end_of(process)
    assert code == 1
    assert "JournalError" in errors
    assert "round 1 could not be stored" in errors
    assert f"run.resume={run}" in errors
    finish(start(tmp_path, f"run.resume={run}"))
    check(run, undisturbed)


@pytest.mark.parametrize("kind", ["error", "kill"])
def test_clients_that_crash_cost_a_run_nothing_but_themselves(
    kind: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    faults = "faults=client_crash", f"faults.client_crash_kind={kind}"
    overrides = "secagg=off", "release=none", "run.rounds=4", f"hydra.run.dir={run}"
    finish(start(tmp_path, *SHORT, *faults, *overrides))
    assert summary_of(run)["rounds"] == 4
