import io
import logging
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedge.commands.display import line_of, shown
from fedge.flower.progress import Tally

REPOSITORY = Path(__file__).resolve().parents[3]
TALLY = Tally(asked=50, answered=30, failed=0, seconds=12.0, memory_bytes=123_400_000)


def test_a_line_says_how_many_how_long_how_fast_and_how_large() -> None:
    assert line_of(TALLY) == "30 answers of clients, 12.0 s, 2.5 answers/s, 123 MB"


def test_failures_are_said_if_there_are_any() -> None:
    assert "30 answers of clients, 2 failed, " in line_of(replace(TALLY, failed=2))


@pytest.mark.parametrize(
    ("seconds", "said"), [(59.94, "59.9 s"), (60.0, "1:00 min"), (3725.0, "62:05 min")]
)
def test_long_times_are_said_in_minutes(seconds: float, said: str) -> None:
    assert f", {said}, " in line_of(replace(TALLY, seconds=seconds))


def test_nothing_is_shown_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with shown(lambda: TALLY):
        pass
    assert stderr.getvalue() == ""


ON_A_TERMINAL = """
import logging, sys
from fedge.commands.display import shown
from fedge.flower.progress import Tally

handler = logging.StreamHandler()
logging.getLogger("flwr").addHandler(handler)
with shown(lambda: Tally(asked=9, answered=7, failed=1, seconds=2.0, memory_bytes=0)):
    logging.getLogger("flwr").warning("a warning above the line")
    print("what the app prints")
assert handler.stream is sys.__stderr__
"""


def test_on_a_terminal_a_line_lives_below_what_is_logged(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    ended = subprocess.run(
        [sys.executable, "-c", ON_A_TERMINAL],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        cwd=REPOSITORY,
        check=False,
    )
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    assert ended.returncode == 0, seen
    assert "7 answers of clients, 1 failed, 2.0 s, 3.5 answers/s" in seen
    assert "1 at work" in seen
    assert "a warning above the line\r\n" in seen
    assert ended.stdout == b"what the app prints\n", "stdout is no terminal here"


def test_log_handlers_elsewhere_are_left_alone(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    stream = handler.stream
    logging.getLogger("flwr").addHandler(handler)
    try:
        with shown(lambda: TALLY):
            assert handler.stream is stream
    finally:
        logging.getLogger("flwr").removeHandler(handler)
        handler.close()
