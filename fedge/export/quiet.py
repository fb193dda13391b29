"""Keep the remarks of converters away from the application's output."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

_STDERR = 2


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is printed, warned of and logged in this block.

    Converters report progress and their own deprecations; what matters they raise. Not
    for several threads at a time: the standard streams belong to the process.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            _native_stderr_closed(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Hold back what C++ code writes, which knows nothing of `sys.stderr`."""
    kept = os.dup(_STDERR)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
