"""The backends whose file is ONNX: ONNX Runtime, TensorRT and OpenVINO.

How int8 is made is handed in: that quantizer is a part of `fedge.compress`.
"""

from dataclasses import dataclass
from typing import ClassVar

import onnx
import torch

from fedge.arrays import AnyArray
from fedge.errors import CompressionError
from fedge.export.exporter import Precision, Quantize
from fedge.export.onnx import export_onnx
from fedge.runtime.backends import Runtime, open_predictor
from fedge.runtime.predictor import OnnxPredictor, Predictor
from fedge.runtime.preprocess import Normalization


@dataclass(frozen=True, slots=True)
class OnnxExporter:
    """ONNX Runtime: the default.

    Attributes:
        quantize_int8: for the runtime's integer kernels.
    """

    quantize_int8: Quantize
    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    precisions: ClassVar[tuple[Precision, ...]] = (Precision.float32, Precision.int8)

    def export(
        self, module: torch.nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        """Return an ONNX file; see `Exporter.export`."""
        return _exported(module, inputs, precision, self.quantize_int8)

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in ONNX Runtime."""
        return open_predictor(Runtime.onnx, model, normalization)


@dataclass(frozen=True, slots=True)
class TensorrtExporter:
    """TensorRT: an ONNX file from which a Jetson builds its own engine.

    An engine belongs to one GPU and one version of TensorRT, so it is built on the
    device, from the file that was signed. Checked in ONNX Runtime, without integer
    kernels: what the file says, not what this processor makes of it.

    Attributes:
        quantize_int8: with all zero points 0.
    """

    quantize_int8: Quantize
    name: ClassVar[str] = "tensorrt"
    suffix: ClassVar[str] = ".onnx"
    precisions: ClassVar[tuple[Precision, ...]] = (Precision.float32, Precision.int8)

    def export(
        self, module: torch.nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        """Return an ONNX file; see `Exporter.export`."""
        return _exported(module, inputs, precision, self.quantize_int8)

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in ONNX Runtime, in float32 arithmetic."""
        return OnnxPredictor(model, normalization, integer_kernels=False)


@dataclass(frozen=True, slots=True)
class OpenvinoExporter:
    """OpenVINO (experimental), which reads ONNX files itself.

    Attributes:
        quantize_int8: for CPUs.
    """

    quantize_int8: Quantize
    name: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".onnx"
    precisions: ClassVar[tuple[Precision, ...]] = (Precision.float32, Precision.int8)

    def export(
        self, module: torch.nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        """Return an ONNX file; see `Exporter.export`.

        Raises:
            CompressionError: also for int8 and a network with attention, of which
                OpenVINO 2026.4.1 computes nonsense without a word, or with recurrent
                layers, whose int8 weights it does not take.
        """
        return _exported(module, inputs, precision, self._quantize_checked)

    def _quantize_checked(self, model: bytes, inputs: AnyArray) -> bytes:
        kind = "attention" if has_attention(model) else "recurrent layers"
        if kind == "attention" or has_recurrent(model):
            raise CompressionError(
                f"openvino: int8 of a network with {kind} is computed wrongly by "
                "OpenVINO, or not at all; use float32, or another backend"
            )
        return self.quantize_int8(model, inputs)

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in OpenVINO."""
        return open_predictor(Runtime.openvino, model, normalization)


def _exported(
    module: torch.nn.Module, inputs: AnyArray, precision: Precision, quantize: Quantize
) -> bytes:
    model = export_onnx(module, inputs[:2])
    return model if precision is Precision.float32 else quantize(model, inputs)


def has_recurrent(model: bytes) -> bool:
    """Return whether an ONNX file has a recurrent layer at its top level."""
    graph = onnx.load_model_from_string(model).graph
    return any(node.op_type in ("GRU", "LSTM", "RNN") for node in graph.node)


def has_attention(model: bytes) -> bool:
    """Return whether an ONNX file multiplies two computed matrices, as attention does.

    Args:
        model: a float32 ONNX file.
    """
    graph = onnx.load_model_from_string(model).graph
    constants = {array.name for array in graph.initializer}
    return any(
        node.op_type == "Attention"
        or (node.op_type == "MatMul" and constants.isdisjoint(node.input))
        for node in graph.node
    )
