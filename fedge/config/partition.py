"""How training data is spread over simulated devices (Hydra group `partition`)."""

from dataclasses import dataclass
from enum import StrEnum, auto

from fedge.config.ranges import check_at_least, check_more_than


class PartitionKind(StrEnum):
    """The rule that gives each device its examples."""

    iid = auto()  # at random, equal sizes
    dirichlet = auto()  # label skew: shares of each class ~ Dirichlet(alpha)
    shards = auto()  # label skew: a few single-label shards per device
    natural = auto()  # the owners that the data itself names
    quantity = auto()  # at random, sizes falling off exponentially
    bootstrap = auto()  # each draws its own at random; devices may share examples


@dataclass(slots=True, kw_only=True)
class PartitionConfig:
    """The split.

    Attributes:
        kind: the rule.
        alpha: concentration of `dirichlet`, > 0; small means strong label skew.
        shards_per_client: shards each device gets under `shards`, >= 1.
        min_examples: a device gets at least so many (`dirichlet` draws again), >= 1.
        examples_per_client: what each device draws under `bootstrap`, >= 1; for fleets
            of more devices than there are examples.
    """

    kind: PartitionKind = PartitionKind.dirichlet
    alpha: float = 0.5
    shards_per_client: int = 2
    min_examples: int = 10
    examples_per_client: int = 50

    def __post_init__(self) -> None:
        check_more_than("partition.alpha", self.alpha, 0.0)
        check_at_least("partition.shards_per_client", self.shards_per_client, 1)
        check_at_least("partition.min_examples", self.min_examples, 1)
        check_at_least("partition.examples_per_client", self.examples_per_client, 1)
