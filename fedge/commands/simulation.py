"""`fedge simulate`: run somebody's Flower app, unchanged, on this machine.

Exit codes: 0, 2 for wrong settings, 1 for an app that fails, 130 for Ctrl-C. The work
is done in `fedge.flower`, which is loaded when it is needed.
"""

import argparse
import logging
import math
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from fedge.errors import ConfigError, FedgeError

if TYPE_CHECKING:
    from fedge.flower.app_folder import AppFolder
    from fedge.flower.local_grid import LocalGrid
    from fedge.flower.progress import Progress

    # A plain import would need a private name at run time.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_FAILED, _REFUSED, _INTERRUPTED = 1, 2, 130
_OPTIONS = {
    "num_clients": "--clients",
    "workers": "--workers",
    "threads": "--threads",
    "client_seconds": "--client-seconds",
    "memory_bytes": "--memory-mb",
    "run-config": "--run-config",
}
_ABOUT = """\
Run a Flower app on this machine, as it is: its pyproject.toml is read like `flwr run`
reads it, its clients run in worker processes. Files that the app writes by a relative
name land in the folder you stand in. Ctrl-C ends everything."""


def add_command(commands: "Subparsers") -> None:
    """Add `simulate` to the parser of `fedge`."""
    parser = commands.add_parser(
        "simulate",
        help="run a Flower app with many virtual clients",
        description=_ABOUT,
    )
    parser.add_argument(
        "app", type=Path, metavar="PATH", help="the app's folder (pyproject.toml)"
    )
    parser.add_argument(
        "--clients",
        type=int,
        metavar="N",
        help="virtual clients; if not given, what the app's own federation says "
        "(options.num-supernodes in its pyproject.toml)",
    )
    parser.add_argument(
        "-c",
        "--run-config",
        action="append",
        default=[],
        metavar="TEXT",
        help="override the app's run config, as for flwr run: \"lr=0.1 name='a b'\", "
        "or a TOML file; may be repeated",
    )
    _add_machine_arguments(parser)
    parser.set_defaults(run=run)


def _add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        metavar="W",
        help="processes that run clients; one per core if not given; 0 runs them in "
        "this process, for debugging",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="T", help="of one client; 1"
    )
    parser.add_argument(
        "--client-seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="end a client that computes for longer; it answers with an error",
    )
    parser.add_argument(
        "--memory-mb",
        type=float,
        default=0.0,
        metavar="M",
        help="private memory that a worker may use beyond what it starts with",
    )
    parser.add_argument(
        "--no-batching",
        action="store_true",
        help="compute clients one by one even if the app can stack them",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="K",
        help="seed the global generators of Python, numpy and PyTorch, for the server "
        "and for each client, so that a run can be repeated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run an app and return the exit code."""
    try:
        with _logging():
            return _simulate(arguments)
    except ConfigError as exc:
        name, colon, rest = str(exc).partition(":")
        return _say(f"{_OPTIONS.get(name, name)}{colon}{rest}", _REFUSED)
    except FedgeError as exc:
        return _say(str(exc), _FAILED)
    except KeyboardInterrupt:
        return _say("interrupted", _INTERRUPTED)


def _simulate(arguments: argparse.Namespace) -> int:
    from fedge.flower.app_folder import load_apps, override, read_app_folder
    from fedge.flower.foreign_app import ForeignApp
    from fedge.flower.local_grid import LocalGrid
    from fedge.flower.simulate import run_server_app

    _check(arguments)
    folder = read_app_folder(arguments.app)
    config = override(folder.run_config, arguments.run_config)
    num_clients = _num_clients(arguments, folder)
    try:
        with _seeded(arguments.seed):
            server_app, client_app = load_apps(folder)
    except ConfigError:
        raise
    except (Exception, SystemExit) as exc:
        return _app_failed(exc, folder)
    grid = LocalGrid(
        ForeignApp(client_app, seed=arguments.seed),
        num_clients=num_clients,
        workers=arguments.workers,
        threads=arguments.threads,
        client_seconds=arguments.client_seconds,
        memory_bytes=int(arguments.memory_mb * 1e6),
        batching=not arguments.no_batching,
        run_config=config,
    )
    return _run_on(grid, lambda g: run_server_app(server_app, g, config), folder)


def _run_on(
    grid: "LocalGrid", run_server: "Callable[[Progress], object]", folder: "AppFolder"
) -> int:
    from fedge.commands.display import line_of, shown
    from fedge.flower.progress import Progress

    failure: Exception | SystemExit | None = None
    with grid:  # workers start while this process has no threads
        progress = Progress(grid)
        try:
            with shown(progress.tally), _stopping(progress):
                run_server(progress)
        except (Exception, SystemExit) as exc:
            failure = exc
        _say(line_of(progress.tally()), 0)
    return 0 if failure is None else _app_failed(failure, folder)


@contextmanager
def _stopping(progress: "Progress") -> Iterator[None]:
    """Let Ctrl-C reach all threads of the server app."""

    def stop(number: int, frame: FrameType | None) -> None:
        progress.stop()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # no signal arrives here
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed the generators before the app is loaded, and what came with it after."""
    from fedge.flower.foreign_app import seed_globally

    if seed is not None:
        seed_globally(seed)
    yield
    if seed is not None:
        seed_globally(seed)


@contextmanager
def _logging() -> Iterator[None]:
    """Let the library's warnings be seen, also those of workers."""
    logger, handler = logging.getLogger("fedge"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fedge: %(message)s"))
    was = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # an app may show everything that reaches the root
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = was


def _check(arguments: argparse.Namespace) -> None:
    """Check what no other room does."""
    if not 0.0 <= arguments.memory_mb < math.inf:
        raise ConfigError(
            f"--memory-mb: {arguments.memory_mb:g} must be at least 0 (0: no limit)"
        )
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        raise ConfigError(f"--seed: {arguments.seed} not in [0, 2**63)")


def _num_clients(arguments: argparse.Namespace, folder: "AppFolder") -> int:
    if arguments.clients is not None:
        return int(arguments.clients)
    if folder.num_clients is None:
        raise ConfigError(
            "--clients: not given, and the app's pyproject.toml has no federation with "
            "options.num-supernodes; give --clients N, at least 1"
        )
    return folder.num_clients


def _app_failed(exc: Exception | SystemExit, folder: "AppFolder") -> int:
    """Show the app's own traceback, and one line at the end."""
    if isinstance(exc, SystemExit):
        if exc.code in (None, 0):
            return 0
        return _say(f"the app ended itself with exit code {exc.code!r}", _FAILED)
    traceback.print_exception(exc.with_traceback(_apps_part(exc, folder)))
    text = " ".join(str(exc).split())
    if isinstance(exc, ModuleNotFoundError):
        text += f"; install what the app needs: pip install {folder.path}"
    return _say(f"the app raised {type(exc).__name__}: {text}", _FAILED)


def _apps_part(exc: Exception, folder: "AppFolder") -> TracebackType | None:
    """Return the traceback from where it enters the app; all of it if it does not."""
    trace = exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(str(folder.path)):
            return trace
        trace = trace.tb_next
    return None if isinstance(exc, SyntaxError) else exc.__traceback__


def _say(text: str, code: int) -> int:
    print(f"fedge: {text}", file=sys.stderr)
    return code
