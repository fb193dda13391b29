"""Who is who among the nodes: each proves once that its certificate is its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Message

from fedge.errors import PeerError
from fedge.secagg.channel import ChannelKey
from fedge.secagg.identity import verify_signature
from fedge.secagg.roster import MEMBER_BYTES, Member, Roster, check_member

CHALLENGE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Cohort:
    """The participants of one session.

    Attributes:
        roster: the members, by uid.
        nodes: their node ids, in the same order.
        template: the training message that all of them are sent.
    """

    roster: Roster
    nodes: tuple[int, ...]
    template: Message

    def place_of(self, node_id: int) -> int:
        """Return a node's place in the roster."""
        return self.nodes.index(node_id)


class Introductions:
    """The members behind the nodes, as far as they have proved it.

    Attributes:
        enrolment_key: public key that certifies devices; empty takes any.
    """

    def __init__(self, enrolment_key: bytes) -> None:
        self.enrolment_key = enrolment_key
        self._member_by_node: dict[int, Member] = {}
        self._taken: set[bytes] = set()

    def unknown(self, nodes: Sequence[int]) -> list[int]:
        """Return the nodes that have yet to say who they are."""
        return [node for node in nodes if node not in self._member_by_node]

    def receive(self, node: int, data: bytes, challenge: bytes, *, now: int) -> None:
        """Note who a node is.

        Args:
            node: the node.
            data: its member and its signature over the challenge.
            challenge: fresh random bytes that the node was sent.
            now: unix seconds, for the certificate.

        Raises:
            PeerError: malformed, not proved, not certified, or somebody else's uid or
                keys; nothing was noted.
        """
        member = Member.from_bytes(data[:MEMBER_BYTES])
        identity_key = member.certificate.identity_key
        verify_signature(identity_key, data[MEMBER_BYTES:], "hello", challenge)
        # Self-certified or enrolled: what its peers would refuse spoils the roster.
        check_member(member, self.enrolment_key or identity_key, now=now)
        ChannelKey.generate().exchange(member.statement.channel_key)
        if self._taken & _unique_parts(member):
            raise PeerError(f"uid {member.uid} or its keys belong to another device")
        self._member_by_node[node] = member
        self._taken |= _unique_parts(member)

    def forget(self, node: int) -> None:
        """Ask this node again next time: it may have new keys."""
        member = self._member_by_node.pop(node, None)
        if member is not None:
            self._taken -= _unique_parts(member)

    def forget_expired(self, now: int) -> None:
        """Forget whose certificate or channel key is no longer valid."""
        for node, member in list(self._member_by_node.items()):
            if now > min(member.certificate.not_after, member.statement.not_after):
                self.forget(node)

    def cohort(self, nodes: Sequence[int], template: Message) -> Cohort:
        """Return the participants among these nodes, of whom there must be some."""
        known = [node for node in nodes if node in self._member_by_node]
        known.sort(key=lambda node: self._member_by_node[node].uid)
        roster = Roster(self._member_by_node[node] for node in known)
        return Cohort(roster, tuple(known), template)


def _unique_parts(member: Member) -> set[bytes]:
    """Return what no two members of a roster may share."""
    keys = member.certificate.identity_key, member.statement.channel_key
    return {*keys, member.uid.to_bytes(4, "little")}
