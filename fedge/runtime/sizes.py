"""Whole numbers that become sizes of tensors: upper bounds of what they can be.

Exported models compute shapes from the shape of their input and from literals ("as many
rows as the input, 64 columns"). A `Size` bounds such numbers with every side of the
input that is open taken as 1, so it says what the literals alone can ask for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedge.runtime.onnx_file import Node, Tensor
from fedge.runtime.protobuf import varints

MAX_ENTRIES = 64  # more numbers than any shape or list of pads has
_AXES = 16
_FLOAT32 = 1
_ITEM = {6: "<i4", 7: "<i8", 9: "?", _FLOAT32: "<f4"}
_TYPED_INTS = (5, 7)
HUGE = 2**63  # beyond it bounds would only become long numbers

_FIRST = frozenset((
    "Abs", "Cast", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
))  # fmt: skip
_REDUCING = frozenset(("ReduceMax", "ReduceMin", "ReduceProd"))
_ELEMENTWISE = frozenset((
    "Add", "Div", "Max", "Min", "Mod", "Mul", "Sub", "Where",
))  # fmt: skip
_SLICE_INPUTS = 3  # data, starts, ends; with axes or steps it is not a shape's end
_DIVIDING = frozenset(("Div", "Mod"))
_COMPARING = frozenset((
    "And", "Equal", "Greater", "Less", "Not", "Or",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """Bounds of some whole numbers' magnitudes, each counted as at least 1.

    Attributes:
        product: of all of them; `HUGE` stands for everything beyond it.
        largest: of the largest one; likewise.
        entries: how many there are, at most `MAX_ENTRIES`.
        is_whole: whether they are known to be whole, and not rounded up here.
        numbers: themselves, if they are whole and stand in the file.
    """

    product: int
    largest: int
    entries: int
    is_whole: bool = True
    numbers: tuple[int, ...] | None = None

    @classmethod
    def within(
        cls, product: int, largest: int, entries: int, *, is_whole: bool
    ) -> "Size | None":
        """Return these bounds, none of them beyond `HUGE`; None for too many entries.

        Sizes of sizes double their digits with every operator otherwise.
        """
        if entries > MAX_ENTRIES:
            return None
        return cls(min(product, HUGE), min(largest, HUGE), entries, is_whole)


def size_of(tensor: Tensor) -> Size | None:
    """Return the bounds of a small tensor of numbers; None if it is none.

    Args:
        tensor: its values have the size that it declares.
    """
    if math.prod(tensor.dims) > MAX_ENTRIES or tensor.dtype not in _ITEM:
        return None
    if tensor.raw is not None:
        entries = np.frombuffer(tensor.raw, _ITEM[tensor.dtype]).tolist()
        return size_from(entries)
    if tensor.dtype == _FLOAT32:
        return None
    found: list[int] = []
    for number in _TYPED_INTS:
        for part in tensor.typed.get(number, ()):
            found += [part] if isinstance(part, int) else list(varints(part))
    return size_from(found)


def size_from(entries: Sequence[float]) -> Size:
    """Return the bounds of these numbers."""
    whole = [math.ceil(abs(e)) if math.isfinite(e) else HUGE for e in entries]
    whole = [max(entry, 1) for entry in whole]
    is_whole = all(float(entry).is_integer() for entry in entries)
    numbers = tuple(map(int, entries)) if is_whole else None
    return Size(math.prod(whole), max(whole, default=1), len(whole), is_whole, numbers)


def size_after(node: Node, inputs: Sequence[Size | None]) -> Size | None:
    """Return the bounds of an operator's result; None if none are known.

    Guarantee: with inputs within their bounds the result is within its own.
    """
    op = node.op_type
    if op in _COMPARING:
        return Size(1, 1, max((s.entries for s in inputs if s), default=_AXES))
    if op == "ConstantOfShape":
        return _filled(node)
    if op == "Gather" and len(inputs) > 1:
        return _gathered(inputs[0], inputs[1])
    if op == "Slice" and len(inputs) == _SLICE_INPUTS and inputs[0] is not None:
        return _sliced(inputs[0], inputs[1], inputs[2])
    if op in _FIRST | _REDUCING and inputs:
        return _kept(inputs[0], is_reduced=op in _REDUCING)
    known = [size for size in inputs if size is not None]
    is_known = len(known) == len(inputs) and op in _ELEMENTWISE | {"Concat"}
    return _combined(op, known) if known and is_known else None


def _kept(size: Size | None, *, is_reduced: bool) -> Size | None:
    if size is None or not is_reduced:
        return size and replace(size, numbers=None)
    return Size.within(size.product, size.product, size.entries, is_whole=size.is_whole)


def _sliced(source: Size, starts: Size | None, ends: Size | None) -> Size:
    """Return the bounds of some of the numbers: of fewer, if it says how many."""
    start, end = (size.numbers if size else None for size in (starts, ends))
    entries = source.entries
    if start and end and len(start) == len(end) == 1:
        # Both count from the same side, so it does not matter how many there are.
        same_side = (start[0] < 0) == (end[0] < 0)
        entries = min(entries, max(end[0] - start[0], 0)) if same_side else entries
    product = min(source.product, source.largest**entries)
    return replace(source, product=product, entries=entries, numbers=None)


def _combined(op: str, inputs: Sequence[Size]) -> Size | None:
    if op != "Concat":
        return _elementwise(op, inputs)
    return Size.within(
        math.prod(size.product for size in inputs),
        max(size.largest for size in inputs),
        sum(size.entries for size in inputs),
        is_whole=all(size.is_whole for size in inputs),
    )


def _filled(node: Node) -> Size | None:
    """Return the bounds of a tensor that is zero, or full of one small number."""
    value = node.attributes.get("value")
    if value is None or value.tensor is None:
        return Size(1, 1, _AXES)
    size = size_of(value.tensor)
    return Size(1, 1, _AXES) if size is not None and size.largest == 1 else None


def _gathered(source: Size | None, places: Size | None) -> Size | None:
    if source is None or places is None or places.entries > MAX_ENTRIES:
        return None
    return Size.within(
        source.largest**places.entries,
        source.largest,
        places.entries,
        is_whole=source.is_whole,
    )


def _elementwise(op: str, inputs: Sequence[Size]) -> Size | None:
    """Return bounds that hold for sums, differences, products, quotients and choices.

    None for what is divided by a fraction, which can be as near to 0 as it likes.
    """
    if op in _DIVIDING and not inputs[-1].is_whole:
        return None
    entries = max(size.entries for size in inputs)
    product, largest = 2**entries, 2
    for size in inputs:
        same = size.entries == entries
        product *= size.product if same else size.largest**entries
        largest *= size.largest
    return Size.within(
        product,
        largest,
        entries,
        # A quotient of whole numbers that are stored as floats may be a fraction.
        is_whole=op not in _DIVIDING and all(size.is_whole for size in inputs),
    )
