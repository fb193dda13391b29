"""Who may say what when: the whole protocol as two tables.

Code and documentation read the same tables. An event that a table does not list for a
phase is illegal there and changes nothing.
"""

from collections.abc import Mapping
from enum import StrEnum, auto
from types import MappingProxyType

from fedge.errors import MisuseError, PeerError


class ClientPhase(StrEnum):
    """Where a client stands in a session."""

    idle = auto()
    fitted = auto()  # has sent keys and shares, holds its update
    masked = auto()  # has sent its masked update, holds its neighbours' shares
    confirmed = auto()  # has signed the survivor set
    done = auto()  # has answered once; holds nothing


class ClientEvent(StrEnum):
    """What a client is asked."""

    fit = auto()
    mask = auto()
    confirm = auto()
    unmask = auto()


CLIENT_SEMI_HONEST: Mapping[ClientPhase, Mapping[ClientEvent, ClientPhase]] = (
    MappingProxyType(
        {
            ClientPhase.idle: {ClientEvent.fit: ClientPhase.fitted},
            ClientPhase.fitted: {ClientEvent.mask: ClientPhase.masked},
            ClientPhase.masked: {ClientEvent.unmask: ClientPhase.done},
            ClientPhase.done: {},
        }
    )
)
CLIENT_MALICIOUS: Mapping[ClientPhase, Mapping[ClientEvent, ClientPhase]] = (
    MappingProxyType(
        {
            ClientPhase.idle: {ClientEvent.fit: ClientPhase.fitted},
            ClientPhase.fitted: {ClientEvent.mask: ClientPhase.masked},
            ClientPhase.masked: {ClientEvent.confirm: ClientPhase.confirmed},
            ClientPhase.confirmed: {ClientEvent.unmask: ClientPhase.done},
            ClientPhase.done: {},
        }
    )
)


def next_client_phase(
    phase: ClientPhase, event: ClientEvent, *, malicious: bool
) -> ClientPhase:
    """Return where a client stands after `event`.

    Raises:
        PeerError: the server asks for this at the wrong time, or a second time.
    """
    table = CLIENT_MALICIOUS if malicious else CLIENT_SEMI_HONEST
    if event not in table.get(phase, {}):
        raise PeerError(f"the server asked for {event} while this client is {phase}")
    return table[phase][event]


class ServerPhase(StrEnum):
    """Where the server stands in a session."""

    advertising = auto()
    masking = auto()
    confirming = auto()
    unmasking = auto()
    done = auto()
    aborted = auto()


SERVER_SEMI_HONEST: Mapping[ServerPhase, ServerPhase] = MappingProxyType(
    {
        ServerPhase.advertising: ServerPhase.masking,
        ServerPhase.masking: ServerPhase.unmasking,
        ServerPhase.unmasking: ServerPhase.done,
    }
)
SERVER_MALICIOUS: Mapping[ServerPhase, ServerPhase] = MappingProxyType(
    {
        ServerPhase.advertising: ServerPhase.masking,
        ServerPhase.masking: ServerPhase.confirming,
        ServerPhase.confirming: ServerPhase.unmasking,
        ServerPhase.unmasking: ServerPhase.done,
    }
)


def next_server_phase(phase: ServerPhase, *, malicious: bool) -> ServerPhase:
    """Return the phase after `phase`; raise MisuseError if the session is over."""
    table = SERVER_MALICIOUS if malicious else SERVER_SEMI_HONEST
    if phase not in table:
        raise MisuseError(f"the session is over ({phase})")
    return table[phase]
