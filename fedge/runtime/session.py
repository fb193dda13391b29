"""Sessions of ONNX Runtime on the CPU, quiet, and its errors.

Two kinds: for a model whose file was verified before, and for a graph that comes from
a server that is only trusted so far. The second kind computes in one thread and in a
bounded arena of memory: more than that is refused by an exception, not by the kernel.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from fedge.errors import DataError
from fedge.runtime.opening import first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_ONLY_FATAL = 4  # the runtime's own log goes to stderr; errors come as exceptions
_LARGEST_ARENA_BYTES = 1 << 30  # a training step of 32 images of a mobile network: 0.2
_AS_REQUESTED = 1  # grow by what is needed, not by powers of two


def open_session(
    model: bytes, *, threads: int, integer_kernels: bool = True
) -> "InferenceSession":
    """Return a session for a model that is trusted.

    Args:
        model: an ONNX file's bytes.
        threads: of one run, >= 1.
        integer_kernels: False computes what the file says, in float32, rather than
            with fused int8 kernels.

    Raises:
        DataError: it is no model that the runtime can load.
    """
    options = _options(threads)
    if not integer_kernels:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return _open(model, options)


def open_bounded_session(model: bytes) -> "InferenceSession":
    """Return a session of one thread, in the arena that all such sessions share.

    Guarantee: running it takes no more than half of the machine's memory, and at most
    1 GiB, for whatever the model asks; beyond that it raises. Loading computes nothing:
    constants are not folded, which would happen outside of the arena.

    Raises:
        DataError: it is no model that the runtime can load.
    """
    _register_arena()
    options = _options(1)
    options.add_session_config_entry("session.use_env_allocators", "1")
    return _open(model, options, disabled=("ConstantFolding",))


@cache  # one arena in a process
def _register_arena() -> None:
    import onnxruntime as ort

    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    settings = {
        "max_mem": min(half, _LARGEST_ARENA_BYTES),
        "arena_extend_strategy": _AS_REQUESTED,
    }
    place = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(settings))


def _options(threads: int) -> "SessionOptions":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ONLY_FATAL
    # A waiting thread sleeps: a device has other things to do between predictions.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(
    model: bytes, options: "SessionOptions", *, disabled: Sequence[str] = ()
) -> "InferenceSession":
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(disabled),
        )
    except runtime_errors() as exc:
        raise DataError(f"model file: {first_line(exc)}") from exc


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return every exception class of ONNX Runtime; they have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found: list[Any] = [value for value in vars(state).values() if _is_error(value)]
    return (*found, RuntimeError, ValueError)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)
