"""Open a model in whatever runtime it was exported for.

A runtime is imported when a model for it is opened, and not before. All run on the CPU;
what other processors there are to hand work to, and how, is in docs/backends.md.
"""

from enum import StrEnum, auto
from pathlib import Path

from fedge.runtime.opening import needing
from fedge.runtime.predictor import OnnxPredictor, Predictor
from fedge.runtime.preprocess import Normalization


class Runtime(StrEnum):
    """What runs a model; also the name of the extra that installs it."""

    onnx = auto()  # ONNX Runtime, the default
    litert = auto()
    executorch = auto()  # its Python package needs torch; its C++ runner does not
    openvino = auto()  # experimental


def open_predictor(
    runtime: Runtime,
    model: bytes | Path,
    normalization: Normalization,
    *,
    threads: int = 1,
) -> Predictor:
    """Return the model, ready to predict from raw values.

    Args:
        runtime: what the model was exported for.
        model: its bytes, or where the file is.
        normalization: from raw values to model inputs.
        threads: of one prediction, >= 1; ExecuTorch takes its own choice.

    Raises:
        ConfigError: the runtime is not installed, or `threads` is below 1.
        DataError: the file cannot be read, is damaged or of another kind, or does not
            have exactly one input and one output of a known number type.
        VerificationError: a tensor of the model is in another file.
    """
    with needing("device" if runtime is Runtime.onnx else runtime):
        match runtime:
            case Runtime.onnx:
                return OnnxPredictor(model, normalization, threads=threads)
            case Runtime.litert:
                from fedge.runtime.litert import LitertPredictor

                return LitertPredictor(model, normalization, threads=threads)
            case Runtime.executorch:
                from fedge.runtime.executorch import ExecutorchPredictor

                return ExecutorchPredictor(model, normalization, threads=threads)
            case Runtime.openvino:
                from fedge.runtime.openvino import OpenvinoPredictor

                return OpenvinoPredictor(model, normalization, threads=threads)
