"""ExecuTorch: a `.pte` program for one example at a time, lowered to XNNPACK.

Source: executorch 1.4.1; int8 by torchao 0.18.0 (PT2E) with XNNPACK's quantizer.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from fedge.arrays import AnyArray
from fedge.errors import CompressionError
from fedge.export.exporter import Precision
from fedge.export.quiet import quiet_converter
from fedge.export.single import one_example
from fedge.runtime.backends import Runtime, open_predictor
from fedge.runtime.opening import first_line, needing
from fedge.runtime.predictor import Predictor
from fedge.runtime.preprocess import Normalization


@dataclass(frozen=True, slots=True)
class ExecutorchExporter:
    """ExecuTorch on CPUs."""

    name: ClassVar[str] = "executorch"
    suffix: ClassVar[str] = ".pte"
    precisions: ClassVar[tuple[Precision, ...]] = (Precision.float32, Precision.int8)

    def export(
        self, module: torch.nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        """Return a `.pte` file; see `Exporter.export`."""
        with needing(self.name), quiet_converter():
            import executorch.exir  # noqa: F401  # asked for before the long work
            import torchao  # noqa: F401
        twin, example = one_example(module, inputs)
        try:
            with quiet_converter(), torch.no_grad():
                program = torch.export.export(twin, (example,))
                if precision is Precision.int8:
                    program = _quantize(program, example, inputs)
                return _lower(program)
        except Exception as exc:  # whatever the compiler's many parts raise
            raise CompressionError(
                f"{type(module).__name__} cannot be exported to ExecuTorch as "
                f"{precision}: {first_line(exc)}"
            ) from exc

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in ExecuTorch."""
        return open_predictor(Runtime.executorch, model, normalization)


def _lower(program: torch.export.ExportedProgram) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackPartitioner,
    )
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(lowered.to_executorch().buffer)


def _quantize(
    program: torch.export.ExportedProgram, example: torch.Tensor, inputs: AnyArray
) -> torch.export.ExportedProgram:
    """Return the program with int8 weights and activations, calibrated on inputs."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True)
    quantizer = XNNPACKQuantizer().set_global(config)
    observed: Any = prepare_pt2e(program.module(), quantizer)
    for at in range(len(inputs)):
        observed(torch.from_numpy(inputs[at : at + 1].copy()))
    return torch.export.export(convert_pt2e(observed), (example,))
