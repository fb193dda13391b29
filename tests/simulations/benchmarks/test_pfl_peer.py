"""pfl-research does the same work; runs where its environment was made."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from simulations.benchmarks.bare_loop import bare_loop

REPOSITORY = Path(__file__).resolve().parents[3]
PYTHON = REPOSITORY / ".venv-peers" / "bin" / "python"
ROUNDING = 3e-6  # three rounds' sums of floats, in different orders

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PYTHON.exists(), reason="make bench-peers was not run"),
]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_three_rounds_give_the_bare_loops_model(
    num_processes: int, tmp_path: Path
) -> None:
    command = [str(PYTHON), "-m", "simulations.benchmarks.pfl_peer", "--rounds", "3"]
    command += [
        "--processes",
        str(num_processes),
        "--params",
        str(tmp_path / "params.npy"),
    ]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120
    )
    with bare_loop("small", num_processes=1) as one_round:
        for round_index in range(3):
            one_round(round_index)
        expected = one_round.params.numpy().copy()
    np.testing.assert_allclose(
        np.load(tmp_path / "params.npy"), expected, atol=ROUNDING
    )
    assert len(json.loads(done.stdout.splitlines()[-1])["seconds"]) == 2
