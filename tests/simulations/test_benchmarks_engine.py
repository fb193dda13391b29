import json

import pytest
import torch

from simulations.benchmarks.engine import main


def test_the_last_line_is_one_object_with_the_overhead(
    capsys: pytest.CaptureFixture[str],
) -> None:
    threads = torch.get_num_threads()
    main(["--json", "--quick"])
    torch.set_num_threads(threads)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["num_params"] > 90_000
    assert figures["overhead_ms_per_client"] == pytest.approx(
        figures["grid_ms_per_client"] - figures["bare_ms_per_client"]
    )
