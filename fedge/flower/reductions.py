"""The reductions that a worker can make by name (see `fedge.flower.partial`)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedge.flower.masked_total import MaskedReduction
from fedge.flower.partial import Reduction
from fedge.flower.plain_total import PlainReduction

_FROM_JSON_BY_KIND: Mapping[str, Callable[[str], Reduction]] = MappingProxyType(
    {"plain": PlainReduction.from_json, "masked": MaskedReduction.from_json}
)


def make_reduction(kind: str, settings: str) -> Reduction:
    """Return the reduction that another process described."""
    return _FROM_JSON_BY_KIND[kind](settings)
