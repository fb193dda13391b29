"""One secure-aggregation session: what its participants must agree on.

The session id is a hash over everything in here, and it goes into every key, share and
signature of the session. Participants that were told different things (another model,
another roster, another threshold) derive unrelated masks, which then do not cancel: the
server gets noise and never somebody's update.

Source: Bell et al. (2020), "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", CCS 2020; Pasquini et al. (2022), arXiv:2111.07380, for the model's digest.
"""

import struct
from dataclasses import dataclass
from typing import Self

from fedge.errors import ConfigError, PeerError
from fedge.secagg.graph import check_degree, graph_seed
from fedge.secagg.hashing import DIGEST_BYTES, digest
from fedge.secagg.ring import Profile

VERSION = 1
MAX_PARTICIPANTS = 65_536
MAX_VECTOR_SIZE = 2**31
# What a clip or weight may be: beyond it, scaling a float32 overflows.
_SCALE_RANGE = (1e-30, 1e30)
# version, flags, run, round, attempt, n, k, t, c_max, n_min, ring bits, value bits,
# clip, w_max, m; then four digests
_FIXED = struct.Struct("<BBQIIIIIIIBBddI")
_DIGESTS = 4
_MALICIOUS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """The server's proposal, which every client checks against its own policy.

    Attributes:
        run: number of the run; a client never goes back to an earlier one.
        round_index: the round, from 0.
        attempt: the try of this round; (run, round, attempt) only ever grows.
        num_participants: n, clients that were asked.
        degree: k, neighbours of each client.
        threshold: t, shares that recover a secret.
        max_corrupt: c_max, clients that may collude with the server.
        min_survivors: n_min, fewest clients that any opened sum may hold.
        profile: ring and value bits.
        clip: largest magnitude of an encoded coordinate, > 0.
        max_weight: weight that the largest code stands for, > 0.
        vector_size: m, ring elements that each client sends.
        malicious: whether survivors sign the survivor set before they unmask.
        model_digest: of the model every client trains from.
        config_digest: of what every client is told to do with it.
        roster_digest: of the participants' certificates and channel keys.
        beacon: public randomness for the graph; zeros if there is none.
    """

    run: int
    round_index: int
    attempt: int
    num_participants: int
    degree: int
    threshold: int
    max_corrupt: int
    min_survivors: int
    profile: Profile
    clip: float
    max_weight: float
    vector_size: int
    malicious: bool
    model_digest: bytes
    config_digest: bytes
    roster_digest: bytes
    beacon: bytes = bytes(DIGEST_BYTES)

    def to_bytes(self) -> bytes:
        """Return the canonical encoding, always of the same length."""
        fixed = _FIXED.pack(
            VERSION,
            _MALICIOUS if self.malicious else 0,
            self.run,
            self.round_index,
            self.attempt,
            self.num_participants,
            self.degree,
            self.threshold,
            self.max_corrupt,
            self.min_survivors,
            self.profile.ring_bits,
            self.profile.value_bits,
            self.clip,
            self.max_weight,
            self.vector_size,
        )
        digests = (self.model_digest, self.config_digest, self.roster_digest)
        return b"".join((fixed, *digests, self.beacon))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a descriptor.

        Raises:
            PeerError: wrong length or version, or a value that no session can have.
        """
        if len(data) != _FIXED.size + _DIGESTS * DIGEST_BYTES:
            raise PeerError(f"descriptor: {len(data)} bytes is not its length")
        version, flags, *numbers = _FIXED.unpack_from(data)
        if version != VERSION or flags not in (0, _MALICIOUS):
            raise PeerError(f"descriptor: version {version}, flags {flags} unknown")
        parts = [
            data[start : start + DIGEST_BYTES]
            for start in range(_FIXED.size, len(data), DIGEST_BYTES)
        ]
        descriptor = cls(
            run=numbers[0],
            round_index=numbers[1],
            attempt=numbers[2],
            num_participants=numbers[3],
            degree=numbers[4],
            threshold=numbers[5],
            max_corrupt=numbers[6],
            min_survivors=numbers[7],
            profile=_profile(numbers[8], numbers[9]),
            clip=numbers[10],
            max_weight=numbers[11],
            vector_size=numbers[12],
            malicious=bool(flags & _MALICIOUS),
            model_digest=parts[0],
            config_digest=parts[1],
            roster_digest=parts[2],
            beacon=parts[3],
        )
        descriptor.check()
        return descriptor

    @property
    def session_id(self) -> bytes:
        """SHA-256 over everything in here."""
        return digest("session", self.to_bytes())

    @property
    def graph_seed(self) -> bytes:
        """What orders the ring of a sparse graph."""
        return graph_seed(beacon=self.beacon, roster_digest=self.roster_digest)

    @property
    def majority(self) -> int:
        """Signatures on one survivor set that exclude a second such set."""
        return (self.num_participants + self.max_corrupt) // 2 + 1

    def check(self) -> None:
        """Raise PeerError unless the numbers make sense together.

        2 t > k + c: the server cannot collect both secrets of one client, even if c of
        its neighbours help (Bonawitz et al., 2017, section 6.2). In a sparse graph few
        of the corrupt clients are one client's neighbours: how few follows from the
        finder, whose degree and threshold clients insist on (`policy.py`). n Q <
        2^(R-1): the sum cannot wrap around.
        """
        n, k, t = self.num_participants, self.degree, self.threshold
        if not 3 <= n <= MAX_PARTICIPANTS:
            raise PeerError(f"descriptor: {n} participants not in [3, 65536]")
        if not 2 <= k <= n - 1 or not 2 <= t <= k:
            raise PeerError(f"descriptor: degree {k}, threshold {t} do not fit {n}")
        check_degree(n, k)
        corrupt_nearby = self.max_corrupt if k == n - 1 else 0
        if 2 * t <= k + corrupt_nearby:
            raise PeerError(
                f"descriptor: threshold {t} must be more than half of degree {k} plus "
                f"{corrupt_nearby} corrupt clients"
            )
        if not 2 <= self.min_survivors <= n:
            raise PeerError(
                f"descriptor: min_survivors {self.min_survivors} not in [2, {n}]"
            )
        if not 1 <= self.vector_size <= MAX_VECTOR_SIZE:
            raise PeerError(f"descriptor: vector of {self.vector_size} elements")
        low, high = _SCALE_RANGE
        if not (low < self.clip < high and low < self.max_weight < high):
            raise PeerError(
                f"descriptor: clip {self.clip:g} or max_weight {self.max_weight:g} not "
                f"in ({low:g}, {high:g})"
            )
        if n > self.profile.max_clients:
            raise PeerError(
                f"descriptor: {n} participants overflow a ring of "
                f"{self.profile.ring_bits} bits with values of "
                f"{self.profile.value_bits}"
            )


def _profile(ring_bits: int, value_bits: int) -> Profile:
    try:
        return Profile(ring_bits, value_bits)
    except ConfigError as exc:
        raise PeerError(f"descriptor: {exc}") from exc
