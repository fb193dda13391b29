"""How large can constants become while a runtime loads a model? Bounded in advance.

A runtime computes, while it loads a model, everything that follows from constants
alone. So a file of a hundred bytes can ask for gigabytes: a shape and ConstantOfShape,
Expand or Tile; or two vectors whose product is a matrix. Here each value gets an upper
bound of its number of elements, in one pass over the operators, and each operator that
makes something as large as a number says is held to the product of all literals that
this number is computed from. Both bounds are meant to be too large, never too small: in
elements, so weights of a few bits may become thirty times as many bytes.

This is the first gate, quick and without running anything. What it misses is met by the
limits of the process in which a release is tried (`trial`), and of the arena in which a
server's graphs run (`session`).

Sizes that follow from the shape of the model's input are not bounded here beyond the
declared sides of that input: whoever runs the model decides how large inputs are.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from fedge.errors import DataError
from fedge.runtime.counts import SIZED, count_after, work_of
from fedge.runtime.known import (
    LEFT_OUT,
    Known,
    constant,
    integers,
    is_float_after,
    of_tensor,
)
from fedge.runtime.onnx_file import Node, OnnxFile
from fedge.runtime.sizes import HUGE, MAX_ENTRIES, Size, size_after

# What may be made from nothing, of all operators together: 16 MiB of 8 bytes each.
MAX_ELEMENTS = 2**21
# Besides: so many times the elements that the file itself holds. A table's indices are
# cast and looked up, and weights reshaped, each of which makes a copy.
_COPIES = 4
_MAX_SETTING = 2**16
_AXES = 16  # of what has a declared shape, and of what Unsqueeze makes
# operator -> which input is the shape of its result
_SHAPES = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
_TEXT = 8  # ONNX's number of the type

_SETTINGS = (
    "dilations", "kernel_shape", "output_padding", "output_shape", "pads", "strides",
)  # fmt: skip


def check_growth(found: OnnxFile) -> None:
    """Raise DataError if loading the model could make much more than is in the file.

    Args:
        found: tensors have the sizes that they declare.
    """
    held = sum(math.prod(t.dims) for t in found.tensors)
    limit, made = MAX_ELEMENTS + _COPIES * held, 0
    for node, count in elements_made(found):
        made += count
        if made > limit:
            raise DataError(
                f"model file: loading it could make {made} values from {held}, at most "
                f"{limit} (operator {node.op_type[:40]})"
            )


def elements_made(found: OnnxFile) -> Iterator[tuple[Node, int]]:
    """Yield, operator by operator, how many elements a runtime makes while loading.

    Guarantee: at least as many as it does make.

    Raises:
        DataError: no bound is known, or a single operator is far beyond any limit.
    """
    pass_ = _Pass({t.name: of_tensor(t) for t in found.tensors}, found.declared)
    if len(pass_.known) != len(found.tensors):
        raise DataError("model file: two tensors have one name")
    for name, sides in found.inputs.items():
        shape = tuple(side or 1 for side in sides)
        pass_.known.setdefault(name, Known(False, math.prod(shape), shape or None))
    for node in found.nodes:
        yield node, pass_.take(node)


class _Pass:
    """One walk over the operators, in an order in which inputs come first."""

    def __init__(
        self, known: dict[str, Known], declared: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.known = known
        self._declared = declared
        self._used: set[str] = set()
        self._most_axes = _AXES  # of any result so far

    def take(self, node: Node) -> int:
        """Learn an operator's outputs; return the elements it makes when loading."""
        inputs = [self._value(name) for name in node.inputs]
        _check_settings(node)
        result = self._result(node, inputs, _grown(node, inputs))
        _check_quotient(node, inputs)
        place = _SHAPES.get(node.op_type)
        if place is not None and place < len(inputs):
            axes = inputs[place].elements or 0
            self._most_axes = max(self._most_axes, min(axes, MAX_ENTRIES))
        work, made = work_of(node, inputs), self._copied(node)
        for name in filter(None, node.outputs):
            if name in self.known:
                raise DataError(f"model file: value {name[:40]!r} is made twice")
            self.known[name] = _as_declared(result, self._declared.get(name, ()))
            made += work * (result.elements or 0) if result.is_constant else 0
        return made

    def _copied(self, node: Node) -> int:
        """Return the elements of a weight that is joined with what comes next.

        Then each layer has one of its own.
        """
        name = node.inputs[1] if node.op_type == "Conv" and node.inputs[1:] else ""
        if not name or name not in self._used:
            self._used.add(name)
            return 0
        return self.known[name].elements or 0

    def _value(self, name: str) -> Known:
        if not name:
            return LEFT_OUT
        if name not in self.known:
            raise DataError(
                f"model file: value {name[:40]!r} is used before it is made"
            )
        return self.known[name]

    def _result(self, node: Node, inputs: list[Known], grown: int) -> Known:
        if node.op_type == "Constant":
            return constant(node)
        is_constant = all(value.is_constant for value in inputs)
        if node.op_type in ("Shape", "Size") and inputs:
            return _measured(node, inputs[0], self._most_axes)
        count, shape = count_after(node, inputs, grown)
        size = size_after(node, [value.size for value in inputs], count)
        if is_constant and count is None:
            raise DataError(
                f"model file: {node.op_type[:40]} of constants or shapes alone; "
                "compute it before exporting"
            )
        is_fixed = all(value.is_fixed for value in inputs)
        is_float = is_float_after(node, inputs)
        return Known(is_constant, count, shape, size, is_fixed, is_float)


def _as_declared(value: Known, sides: tuple[int, ...]) -> Known:
    """Return what is known of a result with what the file claims of it.

    A runtime believes the claim where it cannot tell.
    """
    if value.elements is None or value.is_fixed or not any(sides):
        return value
    claimed = tuple(max(side, 1) for side in sides)
    if value.shape is not None and len(value.shape) == len(claimed):
        shape = tuple(map(max, value.shape, claimed))
        most = max(value.elements, math.prod(shape))
        return replace(value, elements=min(most, HUGE), shape=shape)
    # One may know the sides that the other does not.
    most = value.elements * math.prod(claimed)
    return replace(value, elements=min(most, HUGE), shape=None)


def _measured(node: Node, value: Known, most_axes: int) -> Known:
    """Return what is known of a value's shape, or number of elements, as a value.

    It counts as a constant: where the sides that are asked for are fixed, it is one.
    """
    bound = None if value.elements is None else max(value.elements, 1)
    if node.op_type == "Size":
        return Known(True, 1, (), None if bound is None else Size(bound, bound, 1))
    axes = most_axes if value.shape is None else len(value.shape)
    size = None
    if bound is not None:
        largest = bound if value.shape is None else max(value.shape, default=1)
        is_exact = value.shape is not None and not node.attributes
        size = Size(bound, largest, axes, is_exact=is_exact)
    return Known(True, max(axes, 1), (max(axes, 1),), size)


def _grown(node: Node, inputs: list[Known]) -> int:
    """Return how many times larger than its inputs a result may be, from literals.

    Raises:
        DataError: larger than `MAX_ELEMENTS`, or not known.
    """
    grown = 1
    for place in SIZED.get(node.op_type, ()):
        size = (inputs[place] if place < len(inputs) else LEFT_OUT).size
        if size is None or (node.op_type == "Range" and not size.is_whole):
            raise DataError(
                f"model file: {node.op_type} makes a result whose size follows from "
                "data and not from shapes, so no bound is known"
            )
        grown *= size.product
        # A side and its pads are at most (1 + pad) times as long.
        grown *= 2**size.entries if node.op_type == "Pad" else 1
    grown *= 2 if node.op_type == "Range" else 1  # from -start to limit
    if grown > MAX_ELEMENTS:
        raise DataError(
            f"model file: {node.op_type} can ask for {min(grown, 2**63)} values, at "
            f"most {MAX_ELEMENTS}; export the shape that it takes as a constant"
        )
    return grown


def _check_quotient(node: Node, inputs: list[Known]) -> None:
    """Raise DataError for whole constants divided by what may be 0 or -1.

    The least number divided by -1 ends the process.
    """
    if node.op_type not in ("Div", "Mod") or not all(v.is_constant for v in inputs):
        return
    divisor = inputs[-1] if inputs else LEFT_OUT
    numbers = divisor.size.numbers if divisor.size is not None else None
    is_safe = numbers is not None and min(numbers, default=0) > 0
    if not is_safe and not divisor.is_float:
        raise DataError(
            f"model file: {node.op_type} of constants by what may be 0 or -1; compute "
            "it before exporting"
        )


def _check_settings(node: Node) -> None:
    parts = integers(node, "num_outputs")
    if node.op_type == "Split" and parts and parts[0] != len(node.outputs):
        raise DataError(
            f"model file: Split.num_outputs: {parts[0]} of {len(node.outputs)} results"
        )
    policy = node.attributes.get("keep_aspect_ratio_policy")
    if policy is not None and policy.text != "stretch":
        raise DataError(
            f"model file: Resize.keep_aspect_ratio_policy: {policy.text[:40]!r}, only "
            "'stretch' is accepted"
        )
    kind = integers(node, "to")
    if node.op_type == "Cast" and kind and kind[0] == _TEXT:
        raise DataError("model file: Cast to text is not accepted")
    for name in _SETTINGS:
        worst = max((abs(value) for value in integers(node, name)), default=0)
        if worst > _MAX_SETTING:
            raise DataError(
                f"model file: {node.op_type[:40]}.{name}: {worst} is more than "
                f"{_MAX_SETTING}"
            )
