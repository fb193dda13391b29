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
from fedge.runtime.protobuf import signed, varints

MAX_ENTRIES = 64  # more numbers than any shape or list of pads has
_FLOAT32 = 1
_ITEM = {6: "<i4", 7: "<i8", 9: "?", _FLOAT32: "<f4"}
_TYPED_INTS = (5, 7)
_LARGEST = {6: 2**31 - 1, 9: 1}  # of int32 and bool, which are written as longer ones
# ONNX's numbers of types: those that hold every whole number below 2**24, and others.
_EXACT = frozenset((1, 6, 7, 11))
_EXACT_BELOW = 2**24
_SIGNED = _EXACT | {3, 5}
_BOOL = 9
HUGE = 2**63  # beyond it bounds would only become long numbers

_RENAMING = frozenset(("Identity", "Reshape", "Squeeze", "Unsqueeze"))
_REDUCING = frozenset(("ReduceMax", "ReduceMin", "ReduceProd"))
_SELECTING = _RENAMING | _REDUCING | {
    "Abs", "Cast", "Gather", "Slice", "Split", "Transpose",
}  # fmt: skip
_ELEMENTWISE = frozenset((
    "Add", "Div", "Max", "Min", "Mod", "Mul", "Sub", "Where",
))  # fmt: skip
_SUMS = frozenset(("Add", "Sub"))
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
        entries: how many there are at most; at most `MAX_ENTRIES`.
        is_whole: whether they are known to be whole, and not rounded up here.
        is_exact: whether there are so many entries, and not fewer.
        zeros: how many of them may be 0, at most.
        numbers: themselves, if they are whole and stand in the file.
    """

    product: int
    largest: int
    entries: int
    is_whole: bool = True
    is_exact: bool = False
    numbers: tuple[int, ...] | None = None
    zeros: int = 0

    @classmethod
    def within(
        cls,
        product: int,
        largest: int,
        entries: int,
        *,
        is_whole: bool,
        is_exact: bool = False,
        zeros: int = 0,
    ) -> "Size":
        """Return these bounds, none of them beyond `HUGE`.

        Sizes of sizes double their digits with every operator otherwise.
        """
        bounds = min(product, HUGE), min(largest, HUGE), entries
        return cls(*bounds, is_whole=is_whole, is_exact=is_exact, zeros=zeros)


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
            found += [signed(part)] if isinstance(part, int) else list(varints(part))
    most = _LARGEST.get(tensor.dtype, HUGE)
    if any(abs(number) > most for number in found):
        return None  # the runtime takes some of the bits
    return size_from(found)


def size_from(entries: Sequence[float]) -> Size:
    """Return the bounds of these numbers."""
    whole = [math.ceil(abs(e)) if math.isfinite(e) else HUGE for e in entries]
    whole = [max(entry, 1) for entry in whole]
    is_whole = all(float(entry).is_integer() for entry in entries)
    numbers = tuple(map(int, entries)) if is_whole else None
    return Size(
        math.prod(whole),
        max(whole, default=1),
        len(whole),
        is_whole,
        is_exact=True,
        numbers=numbers,
        zeros=sum(-1 < entry < 1 for entry in entries),
    )


def size_after(
    node: Node, inputs: Sequence[Size | None], count: int | None
) -> Size | None:
    """Return the bounds of an operator's result; None if none are known.

    Guarantee: with inputs within their bounds the result is within its own.

    Args:
        node: an operator.
        inputs: what its inputs can be as sizes.
        count: elements that the result has at most; None if no bound is known.
    """
    op = node.op_type
    if count is None or count > MAX_ENTRIES:
        return None
    if op in _COMPARING:
        return Size(1, 1, count, zeros=count)
    if op == "ConstantOfShape":
        return _filled(node, count)
    if op in _SELECTING:
        return _selected(node, inputs, count)
    known = [size for size in inputs if size is not None]
    is_known = len(known) == len(inputs) and op in _ELEMENTWISE | {"Concat"}
    return _combined(op, known, count) if known and is_known else None


def _selected(node: Node, inputs: Sequence[Size | None], count: int) -> Size | None:
    """Return the bounds of what follows from the numbers of the first input alone."""
    first, op = inputs[0] if inputs else None, node.op_type
    if first is None:
        return None
    if op == "Gather":
        return Size.within(
            first.largest**count,
            first.largest,
            count,
            is_whole=first.is_whole,
            zeros=count if first.zeros else 0,
        )
    return _cast(node, first, count) if op == "Cast" else _kept(op, first, count)


def _kept(op: str, size: Size, count: int) -> Size | None:
    """Return the bounds of some of the numbers, or of what they are reduced to.

    None for what may be reduced over nothing: the extremes of that have no bound.
    """
    is_reduced = op in _REDUCING
    if is_reduced and not (size.is_exact and size.entries):
        return None
    largest = size.product if is_reduced else size.largest
    is_same = op in _RENAMING and size.entries == count
    return Size(
        min(size.product, largest**count),
        largest,
        count,
        is_whole=size.is_whole,
        is_exact=size.is_exact and is_same,
        numbers=size.numbers if is_same else None,
        zeros=min(size.zeros, count),
    )


def _cast(node: Node, size: Size, count: int) -> Size | None:
    """Return the bounds after a change of type, which may wrap numbers around."""
    kinds = node.attributes["to"].ints if "to" in node.attributes else ()
    kind = kinds[0] if len(kinds) == 1 else 0
    if kind == _BOOL:
        return Size(1, 1, count, zeros=count)
    if kind not in _SIGNED:
        return None  # -1 becomes the largest number of the type, and 65520 infinite
    kept = _kept("Identity", size, count)
    is_same = kind in _EXACT and size.largest < _EXACT_BELOW
    if kept is None or is_same:
        return kept
    return replace(kept, numbers=None, zeros=count)


def _combined(op: str, inputs: Sequence[Size], count: int) -> Size | None:
    if op != "Concat":
        return _elementwise(op, inputs, count)
    return Size.within(
        math.prod(size.product for size in inputs),
        max(size.largest for size in inputs),
        count,
        is_whole=all(size.is_whole for size in inputs),
        # Empty ones have no entry, and count as one.
        is_exact=all(size.is_exact for size in inputs)
        and sum(size.entries for size in inputs) == count,
        zeros=sum(size.zeros for size in inputs),
    )


def _filled(node: Node, count: int) -> Size | None:
    """Return the bounds of a tensor that is zero, or full of one small number."""
    value = node.attributes.get("value")
    if value is None or value.tensor is None:
        return Size(1, 1, count, zeros=count)
    size = size_of(value.tensor)
    is_small = size is not None and size.largest == 1
    return Size(1, 1, count, zeros=count) if is_small else None


def _elementwise(op: str, inputs: Sequence[Size], count: int) -> Size | None:
    """Return bounds that hold for sums, differences, products, quotients and choices.

    None for quotients of anything but what stands in the file and is not 0: what is
    divided by nearly nothing can be as large as it likes.
    """
    if op in _DIVIDING and (inputs[-1].numbers is None or 0 in inputs[-1].numbers):
        return None
    chosen = inputs[1:] if op == "Where" else inputs
    factor = 2 if op in _SUMS else 1
    product, largest = factor**count, factor
    for size in chosen:
        # Each is used once, if nothing is repeated to fit the others.
        is_once = size.is_exact and size.entries == count
        product *= size.product if is_once else size.largest**count
        largest *= size.largest
    return Size.within(
        product,
        largest,
        count,
        # A quotient of whole numbers that are stored as floats may be a fraction.
        is_whole=op not in _DIVIDING and all(size.is_whole for size in chosen),
        is_exact=all(size.is_exact and size.entries == count for size in inputs),
        zeros=0 if op == "Mul" and not any(s.zeros for s in inputs) else count,
    )
