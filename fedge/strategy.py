"""What a federated algorithm is: pure functions over data.

A strategy says what devices do (`local`) and how the global model changes (`apply`).
It sees no message, identity, clock or file. Its state is a frozen dataclass of arrays
and scalars with a field `params`, so the journal can store and resume any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

from fedge.aggregation import UpdateMatrix, WeightedSum
from fedge.arrays import Float32

Scalar = bool | int | float | str


class Needs(Enum):
    """What a strategy must be given at the end of a round."""

    SUM = auto()  # the weighted sum is enough: works under secure aggregation
    UPDATES = auto()  # every single update


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """What the strategy asks of the devices in this round.

    Attributes:
        proximal_mu: weight of 0.5 * mu * |local - global|**2 in the loss, >= 0.
        extra: other scalars, passed to the devices as they are.
    """

    proximal_mu: float = 0.0
    extra: Mapping[str, Scalar] = field(default_factory=dict)


class StrategyState(Protocol):
    """Any frozen dataclass of arrays and scalars that has the global model."""

    @property
    def params(self) -> Float32:
        """Trainable part of the global model, float32, shape (d,)."""


S = TypeVar("S", bound=StrategyState)


class Strategy(Protocol[S]):
    """A federated algorithm.

    `init`, `apply` and `local` are pure: same input, same output, and no argument
    is written to.
    """

    @property
    def needs(self) -> Needs:
        """What `apply` must be given; a constant of the class."""

    def init(self, params: Float32) -> S:
        """Return the state before the first round."""

    def apply(self, state: S, total: Any) -> S:  # noqa: ANN401 - see `needs`
        """Return the state after one more round.

        Args:
            state: the state before the round.
            total: a `WeightedSum` if `needs` is SUM, else an `UpdateMatrix`.

        Raises:
            RoundAbortedError: nobody contributed any weight.
        """

    def local(self, state: S) -> LocalSettings:
        """Return what devices must do in the next round."""


Total = WeightedSum | UpdateMatrix
