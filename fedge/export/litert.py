"""LiteRT (formerly TensorFlow Lite): a `.tflite` file for one example at a time.

Best of the backends for recurrent networks and attention in int8 and int4. The
converter is for x86-64 only; the runtime is not.

Source: litert-torch 0.10.0; ai-edge-quantizer 0.10.0 and its recipes.
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
class LitertExporter:
    """LiteRT on CPUs; the same file serves its delegates."""

    name: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"
    precisions: ClassVar[tuple[Precision, ...]] = tuple(Precision)

    def export(
        self, module: torch.nn.Module, inputs: AnyArray, precision: Precision
    ) -> bytes:
        """Return a `.tflite` file; see `Exporter.export`."""
        with needing(self.name), quiet_converter():
            import ai_edge_quantizer  # noqa: F401  # asked for before the long work
            import litert_torch
        twin, example = one_example(module, inputs)
        try:
            with quiet_converter():
                converted = litert_torch.convert(twin, (example,))
                model = bytes(converted.model_content())
                if precision is not Precision.float32:
                    model = _quantize(model, inputs, precision)
        except Exception as exc:  # whatever the converter's many parts raise
            raise CompressionError(
                f"{type(module).__name__} cannot be exported to LiteRT as {precision}: "
                f"{first_line(exc)}"
            ) from exc
        return model

    def open(self, model: bytes, normalization: Normalization) -> Predictor:
        """Open it in LiteRT."""
        return open_predictor(Runtime.litert, model, normalization)


def _quantize(model: bytes, inputs: AnyArray, precision: Precision) -> bytes:
    from ai_edge_quantizer import quantizer, recipe

    recipes = {
        Precision.int8: recipe.static_wi8_ai8,
        Precision.int8_dynamic: recipe.dynamic_wi8_afp32,
        Precision.int4_dynamic: recipe.dynamic_wi4_afp32,
    }
    chosen = recipes[precision]()
    work = quantizer.Quantizer(bytearray(model))
    work.load_quantization_recipe(chosen)
    ranges = None
    if precision is Precision.int8:
        ranges = _ranges(model, inputs, chosen)
    return bytes(work.quantize(ranges).quantized_model)


def _ranges(model: bytes, inputs: AnyArray, chosen: Any) -> Any:  # noqa: ANN401  # theirs
    """Return the smallest and the largest value of each tensor over all examples.

    Not `Quantizer.calibrate`: it takes moving averages over the examples, which come
    one at a time, and so cuts off the largest outputs.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(chosen)
    work = calibrator.Calibrator(
        model, num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    work.calibrate(_examples(model, inputs), manager)
    return work.get_model_qsvs()


def _examples(model: bytes, inputs: AnyArray) -> dict[str, list[dict[str, AnyArray]]]:
    """Return the examples as the quantizer wants them: by signature and input."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    [(signature, names)] = interpreter.get_signature_list().items()
    [name] = names["inputs"]
    inputs = inputs.astype(interpreter.get_input_details()[0]["dtype"])
    return {signature: [{name: inputs[at : at + 1]} for at in range(len(inputs))]}
