"""Remove from an ONNX model what only its makers need to know.

Exporters and quantizers leave source lines, stack traces with file names, and
intermediate shapes in the file. None of it changes what the model computes, and a
model that is signed and sent to strangers should not describe the computer it was made
on. Names of values and the producer's name and version stay.
"""

from typing import Any

import onnx

_DROPPED = ("doc_string", "metadata_props", "quantization_annotation", "value_info")


def strip(model: bytes) -> bytes:
    """Return the same model without comments, metadata and intermediate shapes.

    Guarantee: what the model computes is unchanged, and `strip(strip(m)) == strip(m)`.

    Args:
        model: an ONNX file's bytes, weights inside.

    Returns:
        The bytes of a deterministic serialization.
    """
    parsed = onnx.load_model_from_string(model)
    _strip(parsed)
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


def _strip(message: Any) -> None:  # noqa: ANN401  # protobuf ships no types
    """Clear the dropped fields here and below: graphs nest through attributes."""
    for field, value in message.ListFields():
        if field.name in _DROPPED:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                _strip(child)
