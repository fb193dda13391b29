"""Post-training quantization of an ONNX model to int8: weights and activations.

Static ranges from calibration examples, quantize/dequantize pairs around the operators,
which the runtime fuses into integer kernels. Not in here: training for quantization,
and the judgement whether the result is good enough (`pipeline`).

What is left in float32: embeddings (a look-up gains no speed, and their rows differ in
scale), gates, normalizations and softmax (they lose accuracy or speed). GRU and LSTM
layers compute in float32, for want of an integer kernel, but their weights are stored
as int8 (`recurrent`).

Two results: for CPUs, which is what is released, and for TensorRT.

Source: Jacob et al. (2018), arXiv:1712.05877; ONNX Runtime, quantize_static; NVIDIA,
TensorRT developer guide, "Working with Quantized Types".
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from fedge.arrays import AnyArray, check_finite
from fedge.compress.recurrent import has_recurrent, store_recurrent_int8
from fedge.compress.symmetric import check_symmetric
from fedge.errors import CompressionError
from fedge.export.quiet import quiet_quantizer
from fedge.export.strip import strip
from fedge.runtime.ranges import Ranges

# Operators with weights, and those that then hand int8 on without going back to float.
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PASSING = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool",
    "Pad", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip

Quantize = Callable[[bytes, AnyArray | Ranges], bytes]

RUNTIME_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

# Only ranges are collected, so the batch size changes nothing but the memory in use.
_BATCH_SIZE = 64


def quantize_int8(model: bytes, calibration: AnyArray | Ranges) -> bytes:
    """Return the model with int8 weights and activations.

    Guarantee: the same model and examples (or ranges) give the same bytes; the result
    runs, with finite outputs, on the calibration examples (or on zeros); it names no
    path of this machine.

    Args:
        model: float32 ONNX file with one input.
        calibration: model inputs that fix the activation ranges, float32 or int64,
            shape (n, ...), n >= 1; or the ranges themselves, of the tensors that
            `fedge.compress.observe` names.

    Returns:
        The new file. Without an operator that int8 serves it computes the same as
        `model` and is about as large; that is no error here.

    Raises:
        ValueError: there are no calibration examples, or they are not finite.
        CompressionError: a model does not run on the examples, or returns values that
            are not finite.
    """
    return _checked(model, calibration, _quantize_for_cpus)


def quantize_for_tensorrt(model: bytes, calibration: AnyArray) -> bytes:
    """Return the model as TensorRT wants to be given int8 weights and activations.

    Symmetric, and only what goes into operators with weights is quantized: a pair of
    quantizers between a convolution and its activation would keep them from becoming
    one kernel. Recurrent layers stay as they are. Larger than what `quantize_int8`
    returns, and not for CPUs: those without VNNI overflow on full 8-bit weights.

    Guarantee: as for `quantize_int8`; and all zero points are 0.

    Args:
        model: float32 ONNX file with one input.
        calibration: as for `quantize_int8`.

    Raises:
        ValueError: there are no calibration examples, or they are not finite.
        CompressionError: as for `quantize_int8`, or a zero point is not 0.
    """
    result = _checked(model, calibration, _quantize_for_tensorrt)
    check_symmetric(result)
    return result


def _checked(model: bytes, calibration: AnyArray | Ranges, quantize: Quantize) -> bytes:
    """Return the stripped result of `quantize`, once it has run on the examples."""
    examples = calibration
    if isinstance(examples, Ranges):
        examples = zeros_for(model)
    if len(examples) == 0:
        raise ValueError("calibration: no examples; raise calibration_examples")
    check_finite(examples, "calibration")
    try:
        quantized = strip(quantize(model, calibration))
        check_runs(quantized, examples[:_BATCH_SIZE])
    except RUNTIME_ERRORS as exc:
        raise CompressionError(
            "int8: the runtime refuses the model with calibration examples of dtype "
            f"{examples.dtype} and shape {examples.shape}; if the float32 model "
            "runs on them, set compression.quantization=none"
        ) from exc
    return quantized


def prepared(model: bytes) -> bytes:
    """Return the model as the quantizer sees it: constants folded, shapes inferred."""
    with tempfile.TemporaryDirectory(prefix="fedge.") as folder, quiet_quantizer():
        source, result = Path(folder, "source"), Path(folder, "prepared")
        source.write_bytes(model)
        quant_pre_process(source, result, skip_symbolic_shape=True)
        return result.read_bytes()


def zeros_for(model: bytes) -> AnyArray:
    """Return one input of zeros, of the model's declared shape and type."""
    declared = onnx.load_model_from_string(model).graph.input[0].type.tensor_type
    sides = [dim.dim_value or 1 for dim in declared.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(declared.elem_type)
    return np.zeros(sides, dtype)


def _quantize_for_cpus(model: bytes, calibration: AnyArray | Ranges) -> bytes:
    graph = onnx.load_model_from_string(model).graph
    quantized = _quantize(
        model,
        calibration,
        op_types_to_quantize=quantized_op_types(graph),
        # 7-bit weights: processors without VNNI add pairs of products in 16 bits,
        # which full 8-bit weights overflow. Costs no accuracy that we could
        # measure, packs better, and makes outputs equal on x86 and ARM.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
    )
    return store_recurrent_int8(quantized)


def _quantize_for_tensorrt(model: bytes, calibration: AnyArray | Ranges) -> bytes:
    return _quantize(
        model,
        calibration,
        op_types_to_quantize=list(_WEIGHTED),
        activation_type=QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,  # TensorRT takes no int32
            "OpTypesToExcludeOutputQuantization": list(_WEIGHTED),
        },
    )


def _quantize(model: bytes, calibration: AnyArray | Ranges, **options: Any) -> bytes:  # noqa: ANN401  # onnxruntime's
    """Return the quantizer's own result, through files that nobody else can read."""
    graph = onnx.load_model_from_string(model).graph
    with tempfile.TemporaryDirectory(prefix="fedge.") as folder, quiet_quantizer():
        source, result = Path(folder, "source"), Path(folder, "result")
        source.write_bytes(prepared(model))
        reader, known = None, None
        if isinstance(calibration, Ranges):
            known = Path(folder, "ranges")
            save_tensors_data(_tensors_data(calibration), known)
        else:
            reader = _Batches(graph.input[0].name, calibration)
        quantize_static(
            source,
            result,
            reader,
            calibration_cache_path=known,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            **options,
        )
        return result.read_bytes()


def _tensors_data(ranges: Ranges) -> TensorsData:
    low, high = ranges.low.astype(np.float32), ranges.high.astype(np.float32)
    # Arrays, not numbers: the quantizer's own file format keeps only their type.
    data = {
        name: (low[place : place + 1], high[place : place + 1])
        for place, name in enumerate(ranges.names)
    }
    return TensorsData(CalibrationMethod.MinMax, data)


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # the base has no types
    """The calibration examples as the runtime wants to be fed."""

    def __init__(self, name: str, examples: AnyArray) -> None:
        self._feeds = iter(
            {name: examples[start : start + _BATCH_SIZE]}
            for start in range(0, len(examples), _BATCH_SIZE)
        )

    def get_next(self) -> dict[str, AnyArray] | None:
        """Return the next batch, or None after the last."""
        return next(self._feeds, None)


def quantized_op_types(graph: onnx.GraphProto) -> list[str]:
    """Return what to quantize: next to a recurrent layer nothing can stay in int8."""
    if has_recurrent(graph):
        return list(_WEIGHTED)
    return [*_WEIGHTED, *_PASSING]


def check_runs(model: bytes, inputs: AnyArray) -> None:
    """Raise CompressionError, or one of RUNTIME_ERRORS, if a model does not run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: inputs})
    if not all(np.isfinite(output).all() for output in outputs):
        raise CompressionError(
            "int8: an output is not finite; are the weights and the calibration "
            "examples finite? Otherwise set compression.quantization=none"
        )
