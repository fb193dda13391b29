"""Splits in a process of their own: what they touch, and what they need."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
# Connections are refused; the parent looks for files.
HERMETIC = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(event)
sys.addaudithook(refuse)
from fedge.config import DataConfig, PartitionConfig, PartitionKind
from fedge.data.load import load
from fedge.data.partition import partition
for kind in (PartitionKind.iid, PartitionKind.dirichlet):
    partition(load(DataConfig()), PartitionConfig(kind=kind), num_clients=9, seed=0)
"""


def test_nothing_is_downloaded_printed_or_written_to_the_home_folder(
    tmp_path: Path,
) -> None:
    home, fonts = tmp_path / "home", tmp_path / "fonts"
    home.mkdir()
    fonts.mkdir()
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", HERMETIC],
        env=os.environ | {"HOME": str(home), "MPLCONFIGDIR": str(fonts)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []


def test_without_flower_datasets_the_message_names_what_works() -> None:
    script = (
        "import sys; sys.modules['flwr_datasets'] = None\n"
        "from fedge.config import *; from fedge.data.load import load\n"
        "from fedge.data.partition import partition\n"
        "from fedge.errors import ConfigError\n"
        "data = load(DataConfig())\n"
        "try: partition(data, PartitionConfig(), num_clients=2, seed=0)\n"
        "except ConfigError as exc: print(exc)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs the package 'flwr_datasets'" in result.stdout
    assert "shards, natural or quantity" in result.stdout
