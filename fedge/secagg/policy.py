"""What a client insists on, whatever the server proposes.

A server that may choose the cohort, the graph and the threshold freely can choose them
so that a "sum" holds one honest update. So each client has floors of its own, from its
own configuration, and refuses a session that goes below them.
"""

import math
from dataclasses import dataclass

from fedge.config.ranges import check_at_least, check_more_than, check_within
from fedge.errors import ConfigError, PeerError
from fedge.secagg.parameters import default_parameters
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
    """One client's floors; those that are 0 follow from the number of participants.

    Attributes:
        min_participants: fewest clients that a session may have, >= 3.
        min_survivors: fewest clients that an opened sum may hold, >= 2.
        min_degree: fewest neighbours, unless all others are neighbours; 0 asks for what
            `default_parameters` gives at 80 bits: everybody up to 128 participants, and
            beyond that so many that a server that tries rosters finds no bad graph.
        min_threshold_share: least threshold as a share of the degree, in [0.5, 1]; 0
            asks for two thirds (or what `default_parameters` gives).
        min_corrupt_share: share of the participants that a malicious session must
            survive as the server's helpers, in [0, 0.5).
        max_weight: largest weight scale: with a larger one a heavy client would be
            nearly alone in a sum, whatever the number of the others. > 0.
        require_malicious: refuse sessions without the consistency trip; signatures mean
            nothing without an enrolment key.
        enrolment_key: Ed25519 public key that certifies all participants; empty
            trusts whoever the server names (semi-honest servers only).
    """

    min_participants: int = 5
    min_survivors: int = 5
    min_degree: int = 0
    min_threshold_share: float = 0.0
    min_corrupt_share: float = 0.1
    max_weight: float = 4096.0
    require_malicious: bool = False
    enrolment_key: bytes = b""

    def __post_init__(self) -> None:
        check_at_least("policy.min_participants", self.min_participants, 3)
        check_at_least("policy.min_survivors", self.min_survivors, 2)
        if self.min_degree:
            check_at_least("policy.min_degree", self.min_degree, 2)
        if self.min_threshold_share:
            share = self.min_threshold_share
            check_within("policy.min_threshold_share", share, 0.5, 1.0)
        check_within("policy.min_corrupt_share", self.min_corrupt_share, 0.0, 0.49)
        check_more_than("policy.max_weight", self.max_weight, 0.0)
        if self.require_malicious and not self.enrolment_key:
            raise ConfigError(
                "policy.require_malicious: needs an enrolment key (secagg-dir); "
                "signatures of participants that nobody certifies protect nothing"
            )

    def check(self, descriptor: Descriptor) -> None:
        """Raise PeerError, naming the floor, if the session goes below one."""
        n, k, t = (
            descriptor.num_participants,
            descriptor.degree,
            descriptor.threshold,
        )
        degree, threshold = self._graph_floor(n, k)
        corrupt = int(self.min_corrupt_share * n) if descriptor.malicious else 0
        for what, value, floor in (
            (f"{n} participants", n, self.min_participants),
            (
                f"sums of {descriptor.min_survivors} clients",
                descriptor.min_survivors,
                self.min_survivors,
            ),
            (f"{k} neighbours", k, degree),
            (f"threshold {t} of {k}", t, threshold),
            (f"{descriptor.max_corrupt} corrupt", descriptor.max_corrupt, corrupt),
        ):
            if value < floor:
                raise PeerError(f"session: {what}, this client needs {floor}")
        if descriptor.max_weight > self.max_weight:
            raise PeerError(
                f"session: weights up to {descriptor.max_weight:g}, this client "
                f"accepts {self.max_weight:g}"
            )
        if self.require_malicious and not descriptor.malicious:
            raise PeerError("session: this client needs the consistency trip")

    def _graph_floor(self, n: int, k: int) -> tuple[int, int]:
        """Return the least degree and threshold for n participants."""
        try:
            degree, threshold = default_parameters(n, privacy_bits=_GRINDING_BITS)
        except ConfigError as exc:
            raise PeerError(f"session: {exc}") from exc
        if self.min_degree:
            degree, threshold = min(self.min_degree, n - 1), k // 2 + 1
        if self.min_threshold_share:
            threshold = math.ceil(self.min_threshold_share * k)
        return degree, threshold


# Without a public beacon the server can try rosters until it likes the graph.
_GRINDING_BITS = 80
