"""Objects in images, federated: trained, compressed, published, run on devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = [
    "data=shapes", "model=detector", "partition=iid", "train=adam", "secagg=off",
    "run=quick", "run.cohort=2", "fleet.num_devices=2", "data.max_examples=240",
    "model.widths=[8,8]", "model.hidden=8", "compression=int8",
]  # fmt: skip


def test_devices_get_a_detector_and_report_its_average_precision(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(  # noqa: PLW1510 - the exit status is what is tested
        [sys.executable, "-m", "simulations.run", *SETTINGS, "hydra.run.dir=here"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert "average precision (held-out)" in ended.stdout
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    assert summary["task"] == "detection"
    assert summary["devices_on_release"] == 2
    # Two rounds teach little; how well it learns is tested where it is trained.
    assert 0.0 < summary["device_score"] <= 1.0
    assert 0.0 < summary["accuracy_shipped"] <= 1.0
