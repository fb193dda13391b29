"""What a network can be exported to, by name.

from fedge.backends import export_model
exported = export_model(network, inputs, to="litert", precision=Precision.int8)
Path("model.tflite").write_bytes(exported.model)

A backend is imported when it is asked for. Its extra has its name, except that onnx and
tensorrt need nothing beyond `fedge[server]`.
"""

from typing import TYPE_CHECKING

from fedge.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from fedge.arrays import AnyArray
    from fedge.export.exporter import Exported, Exporter, Precision

BACKENDS = ("onnx", "litert", "executorch", "openvino", "tensorrt")


def exporter_of(name: str) -> "Exporter":
    """Return the backend of this name.

    Raises:
        ConfigError: there is none.
    """
    from fedge.compress.quantize import quantize_for_tensorrt, quantize_int8
    from fedge.export import onnx_exporters

    match name:
        case "onnx":
            return onnx_exporters.OnnxExporter(quantize_int8)
        case "tensorrt":
            return onnx_exporters.TensorrtExporter(quantize_for_tensorrt)
        case "openvino":
            return onnx_exporters.OpenvinoExporter(quantize_int8)
        case "litert":
            from fedge.export.litert import LitertExporter

            return LitertExporter()
        case "executorch":
            from fedge.export.executorch import ExecutorchExporter

            return ExecutorchExporter()
        case _:
            raise ConfigError(f"backend: {name!r} is not one of {', '.join(BACKENDS)}")


def export_model(
    module: "torch.nn.Module",
    inputs: "AnyArray",
    *,
    to: str,
    precision: "Precision | None" = None,
) -> "Exported":
    """Export a network and compare the file with it; see `export_checked`.

    Args:
        module: the trained network; is left as it was.
        inputs: typical model inputs, float32 or int64, shape (n, ...), n >= 1.
        to: one of `BACKENDS`.
        precision: number format; None for float32.

    Raises:
        ConfigError: there is no such backend or precision, or it is not installed.
        ValueError: the inputs are empty, not finite or of another dtype.
        CompressionError: the network cannot be exported, or the file is not like it.
    """
    from fedge.export.exporter import Precision, export_checked

    return export_checked(
        exporter_of(to), module, inputs, precision=precision or Precision.float32
    )
