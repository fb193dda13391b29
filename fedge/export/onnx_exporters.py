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
from fedge.export.tidy import tidy
from fedge.runtime.backends import Runtime, open_predictor
from fedge.runtime.predictor import OnnxPredictor, Predictor
from fedge.runtime.preprocess import Normalization


@dataclass(frozen=True, slots=True)
class OnnxExporter:
    """ONNX Runtime: the default.

    Attributes:
        quantize_int8: from a float32 file to one for the runtime's integer kernels.
    """

    quantize_int8: Quantize
    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    precisions: ClassVar[tuple[Precision, ...]] = (Precision.float32, Precision.int8)

    def export(
        self, module: torch.nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        """Return an ONNX file; see `Exporter.export`."""
        model = export_onnx(module, inputs[:2])
        if precision is Precision.float32:
            return model
        self._check_int8(model)
        return self.quantize_int8(tidy(model), inputs)

    def _check_int8(self, model: bytes) -> None:
        """Raise CompressionError if the runtime cannot compute this in int8."""

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in ONNX Runtime."""
        return open_predictor(Runtime.onnx, model, normalization)


class TensorrtExporter(OnnxExporter):
    """TensorRT: an ONNX file from which a Jetson builds its own engine.

    An engine belongs to one GPU and one version of TensorRT, so it is built on the
    device, from the file that was signed. Its int8 has all zero points 0. Checked in
    ONNX Runtime, without integer kernels: what the file says, not what this processor
    makes of it.
    """

    name: ClassVar[str] = "tensorrt"

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in ONNX Runtime, in float32 arithmetic."""
        return OnnxPredictor(model, normalization, integer_kernels=False)


class OpenvinoExporter(OnnxExporter):
    """OpenVINO (experimental), which reads ONNX files itself.

    int8 is refused of a network with attention, of which OpenVINO 2026.4.1 computes
    nonsense without a word, and with recurrent layers, whose int8 weights it does not
    take.
    """

    name: ClassVar[str] = "openvino"

    def _check_int8(self, model: bytes) -> None:
        for kind, is_there in (
            ("attention", has_attention(model)),
            ("recurrent layers", has_recurrent(model)),
        ):
            if is_there:
                raise CompressionError(
                    f"openvino: int8 of a network with {kind} is computed wrongly by "
                    "OpenVINO, or not at all; use float32, or another backend"
                )

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in OpenVINO."""
        return open_predictor(Runtime.openvino, model, normalization)


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
