"""Processes for workers, made from one clean copy of this process.

The grid forks once, early: that copy (the nursery) only waits, and forks a worker when
it is asked to. A worker that died is replaced by a child of the nursery, not of the
running coordinator with its threads and gigabytes. Nothing is pickled: workers inherit
the app, wherever it was defined.

The fork is made by a thread that has done nothing else. OpenMP keeps its threads per
starting thread, and a child of a thread that has used them waits for them forever.
"""

import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NoReturn

from fedge.errors import TransportError

_START, _REAP = b"s", b"r"
_NUMBER_BYTES = 8
_PR_SET_NAME = 15

WorkerMain = Callable[[int, socket.socket, int, int], None]


def can_fork() -> bool:
    """Say whether workers can be made here; Apple's libraries do not survive a fork."""
    return sys.platform.startswith("linux")


class Nursery:
    """Starts and reaps worker processes.

    Args:
        main: what a worker runs: its number, its socket, and the file descriptors of
            the memory it reads and writes.
    """

    def __init__(self, main: WorkerMain) -> None:
        ours, theirs = socket.socketpair()
        flush_prints()
        self._socket = ours
        self._pid = _fork_in_new_thread(lambda: _nursery(theirs, ours, main))
        theirs.close()

    def start(self, number: int, worker_end: socket.socket, fds: list[int]) -> int:
        """Start worker `number` with its end of a socket pair; return its process id.

        Raises:
            TransportError: the nursery is gone.
        """
        try:
            socket.send_fds(
                self._socket,
                [_START + number.to_bytes(_NUMBER_BYTES, "little")],
                [worker_end.fileno(), *fds],
            )
            return self._answer()
        except OSError as exc:
            raise TransportError(
                f"the process that starts workers is gone ({exc}); was it killed?"
            ) from exc

    def reap(self, pid: int) -> str:
        """Wait for a worker that ends; return how it ended, in words."""
        try:
            self._socket.sendall(_REAP + pid.to_bytes(_NUMBER_BYTES, "little"))
            code = os.waitstatus_to_exitcode(self._answer())
        except OSError as exc:
            raise TransportError(
                f"the process that starts workers is gone ({exc}); was it killed?"
            ) from exc
        if code >= 0:
            return f"its process ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process was killed by signal {-code}"

    def close(self) -> None:
        """End the nursery, which ends all its workers."""
        # Not only closed: a younger nursery has inherited this end.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _answer(self) -> int:
        data = b""
        while len(data) < _NUMBER_BYTES:
            part = self._socket.recv(_NUMBER_BYTES - len(data))
            if not part:
                raise ConnectionResetError("connection closed")
            data += part
        return int.from_bytes(data, "little")


def flush_prints() -> None:
    """Write out what was printed, if it can be: a child would print it once more."""
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            file.flush()


def _fork_in_new_thread(child: Callable[[], NoReturn]) -> int:
    pids: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            child()
        pids.append(pid)

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    if not pids:
        raise TransportError("no worker process could be started; is memory left?")
    return pids[0]


def _nursery(
    control: socket.socket, parents: socket.socket, main: WorkerMain
) -> NoReturn:
    code = 1
    try:
        parents.close()
        _set_name("fedge-nursery")
        # The coordinator decides what Ctrl-C means; it ends us by hanging up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.freeze()  # what is there now is shared with all workers; leave it alone
        _serve(control, main)
        code = 0
    finally:
        os._exit(code)


def _serve(control: socket.socket, main: WorkerMain) -> None:
    children: set[int] = set()
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 + _NUMBER_BYTES, 3)
        if not message:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return
        number = int.from_bytes(message[1:], "little")
        if message[:1] == _START:
            answer = os.fork()
            if answer == 0:
                _worker(control, number, fds, main)
            children.add(answer)
            for fd in fds:
                os.close(fd)
        else:
            answer = os.waitpid(number, 0)[1]
            children.discard(number)
        control.sendall(answer.to_bytes(_NUMBER_BYTES, "little"))


def _worker(
    control: socket.socket, number: int, fds: list[int], main: WorkerMain
) -> NoReturn:
    code = 1
    try:
        control.close()
        _set_name(f"fedge-worker-{number}")
        main(number, socket.socket(fileno=fds[0]), *fds[1:])
        code = 0
    except BaseException:  # whatever it is, this process ends and must not return
        traceback.print_exc()
    finally:
        flush_prints()
        os._exit(code)


def _set_name(name: str) -> None:
    """Give the process a name that `ps` and `top` show."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
