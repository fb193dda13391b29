"""Keep remarks of exporters, quantizers and converters out of the application's output.

Each says much about its own insides, and raises what matters.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

_STDERR = 2
# It reports, once per export, that torchvision's operators are not installed.
_NOISY_LOGGER = "torch.onnx._internal.exporter._registration"
_TRACE_LOGGER = "torch.__trace"


@contextlib.contextmanager
def quiet_converter() -> Iterator[None]:
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


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what PyTorch's exporter says about its own insides, and nothing else.

    Its trace describes every operation to whoever logs, which takes half of the time.
    """
    logger, trace = logging.getLogger(_NOISY_LOGGER), logging.getLogger(_TRACE_LOGGER)
    level, handlers = logger.level, trace.handlers
    logger.setLevel(logging.ERROR)
    trace.handlers = []
    try:
        with warnings.catch_warnings():
            # torch calls functions that torch has deprecated
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # recurrent layers; harmless, as only a copy is touched
            warnings.filterwarnings("ignore", "The tensor attributes? ", UserWarning)
            yield
    finally:
        logger.setLevel(level)
        trace.handlers = handlers


@contextlib.contextmanager
def quiet_quantizer() -> Iterator[None]:
    """Keep ONNX Runtime's quantizer out of the application's root logger.

    It logs through the root logger, whose first use without a handler installs one;
    the null handler prevents that. Records of others are not touched.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_is_not_the_quantizers)
    try:
        yield
    finally:
        root.removeFilter(_is_not_the_quantizers)
        root.removeHandler(handler)


def _is_not_the_quantizers(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in record.pathname
