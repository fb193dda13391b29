"""In child processes: a limit cannot be taken back."""

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
BEGIN = "from fedge.runtime.limits import *; import resource, signal;"


def run(
    code: str, *, memory_mb: int = 64, cpu_seconds: int = 20
) -> subprocess.CompletedProcess[str]:
    limits = f"limit_process(memory_mb={memory_mb}, cpu_seconds={cpu_seconds});"
    return subprocess.run(
        [sys.executable, "-c", BEGIN + limits + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_memory_beyond_the_budget_is_refused() -> None:
    assert "MemoryError" in run("bytearray(600 << 20)").stderr


def test_memory_within_the_budget_is_given() -> None:
    assert run("bytearray(600 << 20)", memory_mb=1024).returncode == 0


def test_time_beyond_the_budget_ends_the_process() -> None:
    done = run("exec('while True: pass')", cpu_seconds=1)
    assert done.returncode == -signal.SIGKILL


def test_output_beyond_the_budget_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "out")
    done = run(f"open({path!r}, 'wb').write(bytes(9 << 20))")
    assert "File too large" in done.stderr
    assert (tmp_path / "out").stat().st_size <= 8 << 20


def test_no_core_is_dumped_and_few_files_are_open() -> None:
    code = (
        "print(resource.getrlimit(resource.RLIMIT_CORE),"
        "resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert run(code).stdout == "(0, 0) (64, 64)\n"


def test_a_limit_that_is_already_tighter_stays() -> None:
    code = (
        "limit_process(memory_mb=4096, cpu_seconds=50);"
        "print(resource.getrlimit(resource.RLIMIT_CPU))"
    )
    assert run(code).stdout == "(20, 20)\n"


def test_the_peak_is_reported() -> None:
    done = run("x = bytearray(100 << 20); print(100 < peak_memory_mb() < 200)")
    assert done.stdout == "True\n"
