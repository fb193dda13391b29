"""Sides that the exporter knows, and yet has computed in each prediction: made literal.

Of a shape of which only the batch is open, `shape[-2:-1]` is a number. As a literal it
costs nothing, and whoever checks the file sees at once how large a mask becomes that is
made from it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from fedge.arrays import AnyArray

Sides = Sequence[int | None]  # None: open

_SLICE_INPUTS = 3  # with axes or steps it is not what exporters make of shapes


def with_fixed_sides(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with parts of shapes as literals where they are known.

    Args:
        model: as exported: the shapes of intermediate values in it are right.
    """
    from onnxscript import optimizer

    literals = _literals(model.graph)
    if not literals:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for node in [node for node in graph.node if node.output[0] in literals]:
        name = node.output[0]
        graph.initializer.append(numpy_helper.from_array(literals[name], name))
        graph.node.remove(node)
    optimizer.remove_unused_nodes(result)
    return result


def _literals(graph: onnx.GraphProto) -> dict[str, AnyArray]:
    """Return what slices of shapes, and single sides, are equal to, by their names."""
    shapes = {
        value.name: _sides(value)
        for value in (*graph.input, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    constants = {a.name: numpy_helper.to_array(a) for a in graph.initializer}
    measured: dict[str, Sides] = {}
    found: dict[str, AnyArray] = {}
    for node in graph.node:
        settings = {a.name: a.i for a in node.attribute}
        if node.op_type == "Shape" and node.input[0] in shapes:
            sides = shapes[node.input[0]]
            end = settings.get("end", len(sides))
            measured[node.output[0]] = sides[settings.get("start", 0) : end]
        elif node.input and node.input[0] in measured:
            part = _part(node, measured[node.input[0]], constants)
            if part is not None:
                found[node.output[0]] = part
    return found


def _sides(value: onnx.ValueInfoProto) -> Sides:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]


def _part(
    node: onnx.NodeProto, sides: Sides, constants: Mapping[str, AnyArray]
) -> AnyArray | None:
    """Return what a Slice or Gather takes of a shape; None if a side of it is open."""
    given = [constants.get(name) for name in node.input[1:]]
    if node.op_type == "Slice" and len(node.input) == _SLICE_INPUTS:
        start, end = given
        if start is None or end is None:
            return None
        chosen = sides[int(start.item()) : int(end.item())]
        return None if None in chosen else np.array(chosen, np.int64)
    if node.op_type == "Gather" and given[0] is not None:
        places = given[0]
        if not all(-len(sides) <= place < len(sides) for place in places.flat):
            return None
        chosen = [sides[place] for place in places.flat]
        if None not in chosen:
            return np.array(chosen, np.int64).reshape(places.shape)
    return None
