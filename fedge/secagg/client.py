"""A client's side of a session: four steps, each a function from state to state.

Between two steps a client may be another process, so its state is plain data. A step
checks everything first and changes nothing if it refuses. The private mask key, the
self mask's seed and the update are erased when the masked update is sent; the
neighbours' shares when the one answer to "unmask" is given.

Source: Bell et al. (2020), figure 1; merged advertising and sharing, see
`docs/secure-aggregation.md`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedge.errors import PeerError
from fedge.secagg.advertising import signed_parts, verify_advertisement
from fedge.secagg.bitmap import unpack_set
from fedge.secagg.channel import open_box, pair_key, seal
from fedge.secagg.graph import neighbours_of
from fedge.secagg.hashing import framed
from fedge.secagg.identity import verify_signature
from fedge.secagg.joining import Session, read_session
from fedge.secagg.keystream import MaskSeed, apply_masks
from fedge.secagg.messages import (
    Advertisement,
    Peer,
    Shares,
    UnmaskRequest,
    peers_from_bytes,
    shares_to_bytes,
)
from fedge.secagg.packing import pack, unpack
from fedge.secagg.pairwise import commitment_of, pair_mask, self_mask
from fedge.secagg.roster import (
    Credentials,
)
from fedge.secagg.shamir import split
from fedge.secagg.transitions import ClientEvent, ClientPhase, next_client_phase

RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class ClientState:
    """What a client carries from one step to the next; secret while it lives.

    Attributes:
        phase: where it stands.
        descriptor: of the session (see `Descriptor.to_bytes`).
        roster: of the session (see `Roster.to_bytes`).
        codes: the encoded update, packed; empty once it is sent.
        mask_key: private X25519 key of this session; empty once it is used.
        seed: of the self mask; empty once it is used.
        shares: the neighbours' shares by roster index: of their seed and of their key.
    """

    phase: ClientPhase
    descriptor: bytes
    roster: bytes
    codes: bytes = field(default=b"", repr=False)
    mask_key: bytes = field(default=b"", repr=False)
    seed: bytes = field(default=b"", repr=False)
    shares: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict, repr=False)


def advertise(
    session: Session,
    codes: bytes,
    credentials: Credentials,
    *,
    random_bytes: RandomBytes = os.urandom,
) -> tuple[ClientState, bytes]:
    """Make fresh keys, share them with the neighbours; return state and message.

    Args:
        session: joined before.
        codes: the encoded update, packed.
        credentials: this client's own.
        random_bytes: the operating system's generator.

    Raises:
        PeerError: a neighbour's channel key is unusable.
    """
    proposed = session.descriptor
    size = proposed.profile.bytes_for(proposed.vector_size)
    if len(codes) != size:
        raise PeerError(f"update: {len(codes)} bytes, the session has {size}")
    phase = next_client_phase(
        ClientPhase.idle, ClientEvent.fit, malicious=proposed.malicious
    )
    mask_key, seed = random_bytes(32), random_bytes(32)
    public = X25519PrivateKey.from_private_bytes(mask_key).public_key()
    boxes = _seal_shares(session, credentials, seed, mask_key, random_bytes)
    unsigned = Advertisement(
        public.public_bytes_raw(),
        commitment_of(seed, session_id=session.session_id, index=session.index),
        boxes,
        b"",
    )
    parts = signed_parts(session.session_id, session.index, unsigned)
    signature = credentials.identity.sign("advertise", *parts)
    state = ClientState(
        phase,
        proposed.to_bytes(),
        session.roster.to_bytes(),
        codes=codes,
        mask_key=mask_key,
        seed=seed,
    )
    return state, replace(unsigned, signature=signature).to_bytes()


def _seal_shares(
    session: Session,
    credentials: Credentials,
    seed: bytes,
    mask_key: bytes,
    random_bytes: RandomBytes,
) -> tuple[bytes, ...]:
    threshold, degree = session.descriptor.threshold, len(session.neighbours)
    seed_shares, key_shares = (
        split(secret, num_shares=degree, threshold=threshold, random_bytes=random_bytes)
        for secret in (seed, mask_key)
    )
    boxes = []
    for position, peer in enumerate(session.neighbours):
        inside = Shares(position + 1, seed_shares[position], key_shares[position])
        boxes.append(
            seal(
                _channel(session, credentials, peer),
                inside.to_bytes(),
                associated=_box_place(session, session.index, peer),
                random_bytes=random_bytes,
            )
        )
    return tuple(boxes)


def _channel(session: Session, credentials: Credentials, peer: int) -> bytes:
    own = credentials.member.statement
    return pair_key(credentials.channel, own, session.roster.members[peer].statement)


def _box_place(session: Session, sender: int, recipient: int) -> bytes:
    ends = (sender.to_bytes(4, "little"), recipient.to_bytes(4, "little"))
    return framed("share", session.session_id, *ends)


def mask(
    state: ClientState,
    data: bytes,
    credentials: Credentials,
    *,
    threads: int = 1,
) -> tuple[ClientState, bytes]:
    """Open the neighbours' shares, mask the update; return state and masked update.

    Args:
        state: after `advertise`.
        data: the trip-2 message.
        credentials: this client's own.
        threads: threads of the mask expansion.

    Raises:
        PeerError: wrong time, too few neighbours, a bad signature, box or key. The
            state is unchanged, and nothing was masked.
    """
    session = resumed(state, credentials)
    proposed = session.descriptor
    phase = next_client_phase(
        state.phase, ClientEvent.mask, malicious=proposed.malicious
    )
    peers = peers_from_bytes(data, degree=proposed.degree)
    shares = _open_all(session, credentials, peers)
    masks = _masks(session, state, peers)
    size, profile = proposed.vector_size, proposed.profile
    masked = unpack(state.codes, size, profile)
    apply_masks(masked, masks, threads=threads)
    after = ClientState(phase, state.descriptor, state.roster, shares=shares)
    return after, pack(masked, profile)


def resumed(state: ClientState, credentials: Credentials) -> Session:
    """Return the session of a state."""
    return read_session(state.descriptor, state.roster, credentials)


def _open_all(
    session: Session, credentials: Credentials, peers: tuple[Peer, ...]
) -> dict[int, tuple[bytes, bytes]]:
    strangers = {peer.index for peer in peers} - set(session.neighbours)
    if strangers:
        raise PeerError(f"peers: participant {min(strangers)} is no neighbour")
    if len(peers) < session.descriptor.threshold:
        raise PeerError(
            f"peers: {len(peers)} neighbours are left, need "
            f"{session.descriptor.threshold}"
        )
    if len({peer.mask_key for peer in peers}) != len(peers):
        raise PeerError("peers: two neighbours have the same mask key")
    proposed = session.descriptor
    near = neighbours_of(
        [peer.index for peer in peers],
        n=proposed.num_participants,
        k=proposed.degree,
        seed=proposed.graph_seed,
    )
    return {
        peer.index: _open_named(session, credentials, peer, near[peer.index])
        for peer in peers
    }


def _open_named(
    session: Session, credentials: Credentials, peer: Peer, theirs: tuple[int, ...]
) -> tuple[bytes, bytes]:
    """Open a peer's box; the error names the peer, for it costs the round."""
    try:
        return _open(session, credentials, peer, theirs)
    except PeerError as exc:
        raise PeerError(f"peers: participant {peer.index}: {exc}") from exc


def _open(
    session: Session, credentials: Credentials, peer: Peer, theirs: tuple[int, ...]
) -> tuple[bytes, bytes]:
    verify_advertisement(session.session_id, session.roster, peer.index, peer)
    inside = Shares.from_bytes(
        open_box(
            _channel(session, credentials, peer.index),
            peer.box,
            associated=_box_place(session, peer.index, session.index),
        )
    )
    if inside.position != theirs.index(session.index) + 1:
        raise PeerError("somebody else's shares are in its box")
    return inside.seed_share, inside.key_share


def _masks(
    session: Session, state: ClientState, peers: tuple[Peer, ...]
) -> list[MaskSeed]:
    secret = X25519PrivateKey.from_private_bytes(state.mask_key)
    own = (session.index, session.roster.members[session.index].certificate)
    pairs = [
        pair_mask(
            secret,
            peer.mask_key,
            own,
            (peer.index, session.roster.members[peer.index].certificate),
            session_id=session.session_id,
        )
        for peer in peers
    ]
    alone = self_mask(
        state.seed, own[1], session_id=session.session_id, index=session.index
    )
    return [alone, *pairs]


def confirm(
    state: ClientState, survivors: bytes, credentials: Credentials
) -> tuple[ClientState, bytes]:
    """Sign the survivor set, once; return state and signature (malicious mode).

    Raises:
        PeerError: wrong time, or a survivor set that this client does not accept.
    """
    session = resumed(state, credentials)
    malicious = session.descriptor.malicious
    phase = next_client_phase(state.phase, ClientEvent.confirm, malicious=malicious)
    _check_survivors(session, state, survivors)
    parts = (session.session_id, survivors)
    return replace(state, phase=phase), credentials.identity.sign("u3", *parts)


def unmask(
    state: ClientState, data: bytes, credentials: Credentials
) -> tuple[ClientState, bytes]:
    """Return one share per neighbour, once: of a survivor's seed, else of the key.

    Args:
        state: after `mask` (or `confirm`).
        data: the trip-3 message.
        credentials: this client's own.

    Raises:
        PeerError: wrong time, a survivor set that this client does not accept, or too
            few signatures on it. The state is unchanged.
    """
    session = resumed(state, credentials)
    proposed = session.descriptor
    phase = next_client_phase(
        state.phase, ClientEvent.unmask, malicious=proposed.malicious
    )
    request = UnmaskRequest.from_bytes(data, num_participants=proposed.num_participants)
    survivors = _check_survivors(session, state, request.survivors)
    if proposed.malicious:
        _check_signatures(session, request, survivors)
    chosen = {
        peer: seed_share if peer in survivors else key_share
        for peer, (seed_share, key_share) in state.shares.items()
    }
    done = ClientState(phase, state.descriptor, state.roster)
    return done, shares_to_bytes(chosen)


def _check_survivors(
    session: Session, state: ClientState, bitmap: bytes
) -> frozenset[int]:
    proposed = session.descriptor
    survivors = unpack_set(bitmap, proposed.num_participants)
    if session.index not in survivors:
        raise PeerError("survivors: this client is not among them")
    if len(survivors) < proposed.min_survivors:
        raise PeerError(f"survivors: {len(survivors)}, need {proposed.min_survivors}")
    near = survivors & set(session.neighbours)
    if len(near) < proposed.threshold:
        raise PeerError(f"survivors: {len(near)} neighbours, need {proposed.threshold}")
    if not near <= state.shares.keys():
        raise PeerError("survivors: a neighbour that never sent its shares")
    return survivors


def _check_signatures(
    session: Session, request: UnmaskRequest, survivors: frozenset[int]
) -> None:
    if not request.signatures.keys() <= survivors:
        raise PeerError("survivors: signed by somebody who is not among them")
    if len(request.signatures) < session.descriptor.majority:
        raise PeerError(
            f"survivors: {len(request.signatures)} signatures, need "
            f"{session.descriptor.majority}"
        )
    for signer, signature in request.signatures.items():
        public = session.roster.members[signer].certificate.identity_key
        verify_signature(public, signature, "u3", session.session_id, request.survivors)
