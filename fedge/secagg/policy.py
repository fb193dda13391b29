"""What a client insists on, whatever the server proposes.

A server that may choose the cohort, the graph and the threshold freely can choose them
so that a "sum" holds one honest update. So each client has floors of its own, from its
own configuration, and refuses a session that goes below them.
"""

from dataclasses import dataclass

from fedge.config.ranges import check_at_least, check_within
from fedge.errors import PeerError
from fedge.secagg.session import Descriptor


@dataclass(frozen=True, slots=True)
class Counter:
    """Where a session stands; each client's counter only ever grows.

    Attributes:
        run, round_index, attempt: see `Descriptor`.
    """

    run: int
    round_index: int
    attempt: int

    @classmethod
    def of(cls, descriptor: Descriptor) -> "Counter":
        """Return the counter of a session."""
        return cls(descriptor.run, descriptor.round_index, descriptor.attempt)

    def is_after(self, other: "Counter") -> bool:
        """Whether this session comes after the other one."""
        mine = (self.run, self.round_index, self.attempt)
        return mine > (other.run, other.round_index, other.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One client's floors.

    Attributes:
        min_participants: fewest clients that a session may have, >= 3.
        min_survivors: fewest clients that an opened sum may hold, >= 2.
        min_degree: fewest neighbours, unless all others are neighbours.
        min_threshold_share: least threshold as a share of the degree, in [0.5, 1].
        require_malicious: refuse sessions without the consistency trip.
        enrolment_key: Ed25519 public key that certifies all participants; empty
            trusts whoever the server names (semi-honest servers only).
    """

    min_participants: int = 5
    min_survivors: int = 5
    min_degree: int = 16
    min_threshold_share: float = 0.5
    require_malicious: bool = False
    enrolment_key: bytes = b""

    def __post_init__(self) -> None:
        check_at_least("policy.min_participants", self.min_participants, 3)
        check_at_least("policy.min_survivors", self.min_survivors, 2)
        check_at_least("policy.min_degree", self.min_degree, 2)
        check_within("policy.min_threshold_share", self.min_threshold_share, 0.5, 1.0)

    def check(self, descriptor: Descriptor) -> None:
        """Raise PeerError, naming the floor, if the session goes below one."""
        n, k, t = (
            descriptor.num_participants,
            descriptor.degree,
            descriptor.threshold,
        )
        if n < self.min_participants:
            raise PeerError(
                f"session: {n} participants, this client needs {self.min_participants}"
            )
        if descriptor.min_survivors < self.min_survivors:
            raise PeerError(
                f"session: sums of {descriptor.min_survivors} clients, this client "
                f"needs {self.min_survivors}"
            )
        if k < min(self.min_degree, n - 1):
            raise PeerError(
                f"session: {k} neighbours, this client needs {self.min_degree}"
            )
        if t < self.min_threshold_share * k:
            raise PeerError(
                f"session: threshold {t} of {k}, this client needs a share of "
                f"{self.min_threshold_share}"
            )
        if self.require_malicious and not descriptor.malicious:
            raise PeerError("session: this client needs the consistency trip")
