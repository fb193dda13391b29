"""A torch module as one ONNX file: weights inside, any batch size, nothing personal.

Tracing a module takes seconds and depends on its architecture alone, so it is done once
(`OnnxTemplate`); a file for new weights then takes some milliseconds. The file's input
is called "input" and its output "output". BatchNorm is folded into the layer before it.
Not in here: quantization, and the check that the file computes what the module computes
(`parity`).
"""

import copy

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from fedge.arrays import AnyArray
from fedge.errors import CompressionError
from fedge.export.fixed_sides import with_fixed_sides
from fedge.export.quiet import quiet_exporter
from fedge.export.strip import strip

__all__ = ["OnnxTemplate", "export_onnx", "strip"]


_MAX_FOLDED = 1 << 31  # bytes; what a protobuf can hold


def export_onnx(module: torch.nn.Module, example: AnyArray) -> bytes:
    """Return the module, in evaluation mode, as an ONNX file.

    Guarantee: the same weights give the same bytes; the module is left as it was; the
    file names no path, source line or stack trace.

    Args:
        module: takes one tensor and returns one tensor, batch axis first in both.
        example: a batch of inputs, float32 or int64, shape (n, ...), n >= 1; only its
            shape and dtype matter.

    Raises:
        ValueError: the example is empty or has another dtype.
        CompressionError: the module cannot be expressed in ONNX.
    """
    return OnnxTemplate(module, example).fill(module)


class OnnxTemplate:
    """An architecture in ONNX, ready to be filled with weights.

    Args:
        module, example: as `export_onnx`.

    Raises:
        ValueError, CompressionError: as `export_onnx`.
    """

    def __init__(self, module: torch.nn.Module, example: AnyArray) -> None:
        self._graph = _traced(module, example)
        self._shapes = _shapes(module)

    def fill(self, module: torch.nn.Module) -> bytes:
        """Return the ONNX file of a module of this architecture, in evaluation mode.

        Guarantee: the bytes that `export_onnx` returns for it; the module is left as
        it was.

        Raises:
            ValueError: its arrays have other names or shapes than the template's.
        """
        if _shapes(module) != self._shapes:
            raise ValueError("module: not of the architecture of this template")
        filled = onnx.ModelProto()
        filled.CopyFrom(self._graph)
        values = module.state_dict()
        for array in filled.graph.initializer:
            if array.name in values:
                new = values[array.name].detach().cpu().contiguous().numpy()
                array.CopyFrom(numpy_helper.from_array(new, array.name))
        return strip(with_fixed_sides(_folded(filled)).SerializeToString())


def _traced(module: torch.nn.Module, example: AnyArray) -> onnx.ModelProto:
    """Return the graph as it was traced: its arrays have the names they have in torch.

    A copy of the module is traced: tracing a recurrent layer replaces its weights for a
    while, and convolutions laid out for training (channels last) would add operators.
    """
    twin = copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # stub
    with torch.no_grad(), quiet_exporter():
        try:
            program = torch.onnx.export(
                twin,
                (_example_batch(example),),
                dynamo=True,
                optimize=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["output"],
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as exc:
            raise CompressionError(
                f"{type(module).__name__} cannot be exported to ONNX: its forward must "
                "take and return one tensor and not branch on values"
            ) from exc
    if program is None:  # the exporter's type allows it, its dynamo form does not
        raise CompressionError(f"{type(module).__name__}: the exporter returned none")
    return onnx.load_model_from_string(program.model_proto.SerializeToString())


def _folded(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph without what can be computed before it runs."""
    from onnxscript import optimizer

    # Without these limits large weights would be put into another order (the gates of
    # recurrent layers) by operators in the file.
    result: onnx.ModelProto = optimizer.optimize(
        graph, input_size_limit=_MAX_FOLDED, output_size_limit=_MAX_FOLDED
    )
    return result


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _example_batch(example: AnyArray) -> torch.Tensor:
    """Return two inputs: with a batch of one, one would become a constant."""
    if example.dtype not in (np.float32, np.int64):
        raise ValueError(f"example: dtype {example.dtype}, need float32 or int64")
    if example.ndim < 1 or len(example) == 0:
        raise ValueError(f"example: shape {example.shape}, need (n, ...) with n >= 1")
    return torch.from_numpy(np.repeat(example[:1], 2, axis=0))
