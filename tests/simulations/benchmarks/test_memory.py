"""The watcher sees what processes hold, and counts what they share once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simulations.benchmarks.memory import tree, tree_bytes, watch_memory

SIZE = 150_000_000
SLACK = 15_000_000  # the child's interpreter grows and shares pages meanwhile
# Each allocates when told to, says so, and waits for the end.
ALONE = f"input(); x = b'x' * {SIZE}; print(flush=True); input(); input()"
# A grandchild of this process does the work.
BELOW = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ALONE!r}])"
# Two processes read memory that one of them has written.
SHARED = f"""
import mmap, os
input()
memory = mmap.mmap(-1, {SIZE})
ready, written = os.pipe()
if os.fork() == 0:
    for _ in range({SIZE} // 10**6):
        memory.write(b'x' * 10**6)
    os.write(written, b'!')
    os.read(os.pipe()[0], 1)
os.read(ready, 1)
assert sum(memory[::4096]) > 0
print(flush=True)
input()
os.killpg(0, 15)
"""


class Child:
    """A process that goes on a step when told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def step(self) -> None:
        self.tell()
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextmanager
def child(code: str) -> Iterator[Child]:
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Child(process)
        finally:
            os.killpg(process.pid, 9)


@pytest.mark.parametrize(
    "code", [ALONE, BELOW, SHARED], ids=["alone", "below", "shared"]
)
def test_an_allocation_below_is_seen_once_with_its_size(code: str) -> None:
    with child(code) as process:
        before = tree_bytes(process.pid)
        with watch_memory(process.pid) as peak:
            process.step()
        assert abs(peak.num_bytes - before - SIZE) < SLACK


def test_what_was_freed_stays_in_the_peak() -> None:
    code = f"input(); x = b'x' * {SIZE}; print(flush=True); input(); del x; print()"
    with child(f"{code}; print(flush=True); input()") as process:
        with watch_memory(process.pid, interval_seconds=0.001) as peak:
            process.step()
            while peak.num_bytes < SIZE:
                pass
            process.step()
        assert peak.num_bytes > SIZE
        assert tree_bytes(process.pid) < SIZE


def test_a_process_that_has_ended_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert tree_bytes(process.pid) == 0


def test_a_tree_is_a_process_and_all_below_it() -> None:
    with child(BELOW) as process:
        process.step()
        members = tree(process.pid)
    assert members[0] == process.pid
    assert len(members) == 2
    assert os.getpid() not in members
