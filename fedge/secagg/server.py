"""The server's side of a session: it collects, adds, and removes the masks of the sum.

Fed with messages and told when a phase is over; holds one vector whatever the cohort's
size. What is wrong with one client's message raises PeerError and changes nothing, so
the client can be left out. Nothing is revealed when too few are left: the session is
aborted and what was added is of no use to anybody.

Source: Bell et al. (2020), figure 1; unmasking rule of Bonawitz et al. (2017).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedge.arrays import AnyArray, Int64
from fedge.errors import MisuseError, PeerError, RoundAbortedError
from fedge.secagg.advertising import boxes_digest, verify_advertisement
from fedge.secagg.bitmap import pack_set
from fedge.secagg.channel import ChannelKey
from fedge.secagg.graph import neighbourhoods
from fedge.secagg.identity import verify_signature
from fedge.secagg.keystream import MaskSeed, apply_masks
from fedge.secagg.messages import (
    Advertisement,
    Peer,
    UnmaskRequest,
    peers_to_bytes,
    shares_from_bytes,
)
from fedge.secagg.packing import add_packed
from fedge.secagg.pairwise import commitment_of, pair_mask, self_mask
from fedge.secagg.recovery import Check, recover
from fedge.secagg.ring import RingArray, decode_sum
from fedge.secagg.roster import Roster
from fedge.secagg.session import Descriptor
from fedge.secagg.transitions import ServerPhase, next_server_phase


class Server:
    """One session, from the first advertisement to the sum.

    Guarantee: `finish` returns the exact integer sum of the survivors' codes, or
    raises; it never returns a sum that a wrong share has spoilt.

    Attributes:
        descriptor: what was agreed.
        roster: who was asked.
        phase: what is being collected now.
        culprits: clients who answered with wrong shares of somebody: they have changed
            them, or were dealt wrong ones, which cannot be told apart.
    """

    def __init__(self, descriptor: Descriptor, roster: Roster) -> None:
        descriptor.check()
        self.descriptor, self.roster = descriptor, roster
        self._session_id = descriptor.session_id
        self.phase = ServerPhase.advertising
        self.culprits: set[int] = set()
        self._near = neighbourhoods(
            n=descriptor.num_participants,
            k=descriptor.degree,
            seed=descriptor.graph_seed,
        )
        self._advertised: dict[int, Advertisement] = {}
        self._mask_keys: set[bytes] = set()
        self._asked: frozenset[int] = frozenset()
        self._survivors: frozenset[int] = frozenset()
        self._survived: set[int] = set()
        self._signatures: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, bytes]] = {}
        self._responders: set[int] = set()
        dtype = descriptor.profile.dtype
        self._total: AnyArray = np.zeros(descriptor.vector_size, dtype)

    # -- trip 1 ---------------------------------------------------------------------

    def receive_advertisement(self, index: int, data: bytes) -> None:
        """Note a client's keys and shares.

        Raises:
            PeerError: wrong time, unknown client, a second time, malformed, not signed
                by the client, or with a mask key that its neighbours would refuse.
        """
        self._expect(ServerPhase.advertising, index, self._advertised)
        keys = Advertisement.from_bytes(data, degree=self.descriptor.degree)
        session_id = self._session_id
        verify_advertisement(session_id, self.roster, index, keys)
        # One such key would make every neighbour refuse: leave out its sender instead.
        if keys.mask_key in self._mask_keys:
            raise PeerError(f"participant {index} sent somebody else's mask key")
        ChannelKey.generate().exchange(keys.mask_key)
        self._mask_keys.add(keys.mask_key)
        self._advertised[index] = keys

    def close_advertising(self) -> dict[int, bytes]:
        """End trip 1; return the trip-2 message for each client that can go on.

        Raises:
            RoundAbortedError: too few are left.
        """
        self._close(ServerPhase.advertising)
        self._asked = self._connected()
        self._require(len(self._asked), "sent their keys")
        digests = {i: boxes_digest(self._advertised[i].boxes) for i in self._asked}
        return {index: self._peers(index, digests) for index in self._asked}

    def _connected(self) -> frozenset[int]:
        """Return the most clients of whom each has enough of the others nearby.

        Who has fewer than `threshold` neighbours left could never be recovered if it
        dropped out later, so nobody may mask with it; leaving it out may leave another
        one with too few.
        """
        left = set(self._advertised)
        while True:
            lonely = {
                index
                for index in left
                if sum(peer in left for peer in self._near[index])
                < self.descriptor.threshold
            }
            if not lonely:
                return frozenset(left)
            left -= lonely

    def _peers(self, index: int, digests: Mapping[int, bytes]) -> bytes:
        entries = []
        for sender in self._near[index]:
            if sender not in digests:
                continue
            keys = self._advertised[sender]
            entries.append(
                Peer(
                    sender,
                    keys.mask_key,
                    keys.commitment,
                    digests[sender],
                    keys.signature,
                    keys.boxes[self._near[sender].index(index)],
                )
            )
        return peers_to_bytes(entries)

    # -- trip 2 ---------------------------------------------------------------------

    def receive_masked(self, index: int, data: bytes) -> None:
        """Add a client's masked update to the sum and forget it.

        Raises:
            PeerError: wrong time (a late update is never looked at), not asked, a
                second time, or malformed.
        """
        self._expect(ServerPhase.masking, index, self._survived)
        if index not in self._asked:
            raise PeerError(f"participant {index} was not asked for its update")
        add_packed(self._total, data, self.descriptor.profile)
        self._survived.add(index)

    def receive_masked_sum(self, indices: Sequence[int], total: RingArray) -> None:
        """Add the masked updates of several clients that were added up before.

        For simulations, where clients of one process are summed there; whoever hands
        this over is trusted as the server itself is.

        Args:
            indices: the clients in the sum, each once.
            total: sum of their masked updates, in the ring's word, shape (m,).

        Raises:
            PeerError: for one of them, as `receive_masked`; nothing was added.
        """
        if len(set(indices)) < len(indices):
            raise PeerError("partial sum: names a participant twice")
        for index in indices:
            self._expect(ServerPhase.masking, index, self._survived)
            if index not in self._asked:
                raise PeerError(f"participant {index} was not asked for its update")
        if total.shape != self._total.shape or total.dtype != self._total.dtype:
            raise PeerError(f"partial sum: {total.dtype} of shape {total.shape}")
        np.add(self._total, total, out=self._total)
        self._survived.update(indices)

    def close_masking(self) -> bytes:
        """End trip 2; return the bitmap of the survivors.

        Raises:
            RoundAbortedError: too few are left.
        """
        self._close(ServerPhase.masking)
        self._survivors = frozenset(self._survived)
        self._require(len(self._survivors), "sent their masked updates")
        return self.survivor_bitmap

    @property
    def survivors(self) -> frozenset[int]:
        """Places of the clients whose updates are in the sum."""
        return self._survivors

    @property
    def survivor_bitmap(self) -> bytes:
        """The survivors as one bit each, in the order of the roster."""
        return pack_set(self._survivors, self.descriptor.num_participants)

    # -- trip 2b, malicious mode ----------------------------------------------------

    def receive_confirmation(self, index: int, signature: bytes) -> None:
        """Note a survivor's signature on the survivor set.

        Raises:
            PeerError: wrong time, no survivor, a second time, or a bad signature.
        """
        self._expect(ServerPhase.confirming, index, self._signatures)
        if index not in self._survivors:
            raise PeerError(f"participant {index} is no survivor")
        public = self.roster.members[index].certificate.identity_key
        session_id = self._session_id
        verify_signature(public, signature, "u3", session_id, self.survivor_bitmap)
        self._signatures[index] = signature

    def close_confirming(self) -> None:
        """End trip 2b; raise RoundAbortedError if too few have signed."""
        self._close(ServerPhase.confirming)
        if len(self._signatures) < self.descriptor.majority:
            self.phase = ServerPhase.aborted
            raise RoundAbortedError(
                f"{len(self._signatures)} signed the survivor set, need "
                f"{self.descriptor.majority}"
            )

    # -- trip 3 ---------------------------------------------------------------------

    def unmask_request(self) -> bytes:
        """Return the trip-3 message, the same for all survivors."""
        if self.phase is not ServerPhase.unmasking:
            raise MisuseError(f"no survivor set is agreed yet ({self.phase})")
        return UnmaskRequest(self.survivor_bitmap, self._signatures).to_bytes()

    def receive_shares(self, index: int, data: bytes) -> None:
        """Note a survivor's shares of its neighbours' secrets.

        Raises:
            PeerError: wrong time, no survivor, a second time, malformed, or a share of
                somebody who is no neighbour.
        """
        self._expect(ServerPhase.unmasking, index, self._responders)
        if index not in self._survivors:
            raise PeerError(f"participant {index} is no survivor")
        shares = shares_from_bytes(data, degree=self.descriptor.degree)
        if not shares.keys() <= set(self._near[index]):
            raise PeerError(f"participant {index} sent a stranger's share")
        self._responders.add(index)
        for owner, share in shares.items():
            position = self._near[owner].index(index) + 1
            self._shares.setdefault(owner, {})[position] = share

    @property
    def can_finish(self) -> bool:
        """Whether enough shares have come for every secret that is needed."""
        return all(
            len(self._shares.get(owner, {})) >= self.descriptor.threshold
            for owner in self._needed()
        )

    def _needed(self) -> frozenset[int]:
        """Return whose secret must be recovered: whose mask is in somebody's update."""
        return self._survivors | {
            index
            for index in self._asked - self._survivors
            if any(peer in self._survivors for peer in self._near[index])
        }

    def finish(self, *, threads: int = 1) -> Int64:
        """Remove all masks; return the sum of the survivors' codes, int64, shape (m,).

        Raises:
            RoundAbortedError: too few or too many wrong shares of somebody.
        """
        self._close(ServerPhase.unmasking)
        try:
            masks = self._masks_to_remove()
        except RoundAbortedError:
            self.phase = ServerPhase.aborted
            raise
        apply_masks(self._total, masks, threads=threads)
        total = decode_sum(self._total, self.descriptor.profile)
        self._shares.clear()
        return total

    def _masks_to_remove(self) -> list[MaskSeed]:
        masks = []
        for index in sorted(self._needed()):
            if index in self._survivors:
                masks.append(self._self_mask(index))
            else:
                masks += self._pair_masks(index)
        return masks

    def _self_mask(self, index: int) -> MaskSeed:
        session_id = self._session_id
        commitment = self._advertised[index].commitment

        def is_right(seed: bytes) -> bool:
            return commitment_of(seed, session_id=session_id, index=index) == commitment

        seed = self._recover(index, is_right)
        certificate = self.roster.members[index].certificate
        mask = self_mask(seed, certificate, session_id=session_id, index=index)
        return _opposite(mask)

    def _pair_masks(self, index: int) -> list[MaskSeed]:
        """Return what undoes the masks that survivors share with a dropped client."""
        expected = self._advertised[index].mask_key

        def is_right(key: bytes) -> bool:
            public = X25519PrivateKey.from_private_bytes(key).public_key()
            return public.public_bytes_raw() == expected

        secret = X25519PrivateKey.from_private_bytes(self._recover(index, is_right))
        own = (index, self.roster.members[index].certificate)
        # The dropped client's own masks, as it would have added them, are the opposite
        # of what its neighbours did add: adding them cancels those.
        return [
            pair_mask(
                secret,
                self._advertised[peer].mask_key,
                own,
                (peer, self.roster.members[peer].certificate),
                session_id=self._session_id,
            )
            for peer in self._near[index]
            if peer in self._survivors
        ]

    def _recover(self, owner: int, is_right: Check) -> bytes:
        """Return a client's secret, checked; note through whom wrong shares came."""
        holders = self._near[owner]
        suspects = [x + 1 for x, h in enumerate(holders) if h in self.culprits]
        try:
            found = recover(
                self._shares.get(owner, {}),
                threshold=self.descriptor.threshold,
                is_right=is_right,
                suspects=suspects,
            )
        except RoundAbortedError as exc:
            raise RoundAbortedError(f"participant {owner}: {exc}") from exc
        self.culprits |= {holders[x - 1] for x in found.wrong}
        return found.secret

    # -- bookkeeping ----------------------------------------------------------------

    def _expect(
        self, phase: ServerPhase, index: int, seen: Mapping[int, object] | set[int]
    ) -> None:
        if self.phase is not phase:
            raise PeerError(f"participant {index} answered {phase} in {self.phase}")
        if not 0 <= index < self.descriptor.num_participants:
            raise PeerError(f"participant {index} is not in this session")
        if index in seen:
            raise PeerError(f"participant {index} answered {phase} twice")

    def _close(self, phase: ServerPhase) -> None:
        if self.phase is not phase:
            raise MisuseError(f"cannot end {phase} in {self.phase}")
        self.phase = next_server_phase(phase, malicious=self.descriptor.malicious)

    def _require(self, left: int, what: str) -> None:
        need = self.descriptor.min_survivors
        if left < need:
            self.phase = ServerPhase.aborted
            raise RoundAbortedError(
                f"{left} of {self.descriptor.num_participants} clients {what}, need "
                f"{need}"
            )


def _opposite(mask: MaskSeed) -> MaskSeed:
    return MaskSeed(mask.key, mask.suite, -mask.sign)
