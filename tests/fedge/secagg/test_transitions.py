from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fedge.errors import MisuseError, PeerError
from fedge.secagg.server import Server
from fedge.secagg.transitions import (
    CLIENT_MALICIOUS,
    CLIENT_SEMI_HONEST,
    SERVER_MALICIOUS,
    SERVER_SEMI_HONEST,
    ClientEvent,
    ClientPhase,
    ServerPhase,
    next_client_phase,
    next_server_phase,
)
from tests.fedge.secagg.halfway import Halfway, advertised, masked
from tests.fedge.secagg.pairs import Trip, cohort_of

MODES = [False, True]
LEGAL = {
    False: [("idle", "fit"), ("fitted", "mask"), ("masked", "unmask")],
    True: [
        ("idle", "fit"),
        ("fitted", "mask"),
        ("masked", "confirm"),
        ("confirmed", "unmask"),
    ],
}


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("phase", ClientPhase)
@pytest.mark.parametrize("event", ClientEvent)
def test_a_client_does_only_what_comes_next(
    phase: ClientPhase, event: ClientEvent, malicious: bool
) -> None:
    if (str(phase), str(event)) in LEGAL[malicious]:
        after = next_client_phase(phase, event, malicious=malicious)
        assert list(ClientPhase).index(after) > list(ClientPhase).index(phase)
        return
    with pytest.raises(PeerError, match=f"{event} while"):
        next_client_phase(phase, event, malicious=malicious)


@pytest.mark.parametrize("table", [CLIENT_SEMI_HONEST, CLIENT_MALICIOUS])
def test_no_client_event_happens_twice_on_any_way_through(
    table: Mapping[ClientPhase, Mapping[ClientEvent, ClientPhase]],
) -> None:
    events = [event for choices in table.values() for event in choices]
    assert len(events) == len(set(events))


@pytest.mark.parametrize("malicious", MODES)
def test_the_server_goes_through_its_phases_once(malicious: bool) -> None:
    phase, seen = ServerPhase.advertising, [ServerPhase.advertising]
    table = SERVER_MALICIOUS if malicious else SERVER_SEMI_HONEST
    while phase in table:
        phase = next_server_phase(phase, malicious=malicious)
        seen.append(phase)
    assert phase is ServerPhase.done
    assert len(set(seen)) == len(seen)
    assert (ServerPhase.confirming in seen) == malicious


@pytest.mark.parametrize("phase", [ServerPhase.done, ServerPhase.aborted])
def test_nothing_comes_after_the_end(phase: ServerPhase) -> None:
    with pytest.raises(MisuseError, match="over"):
        next_server_phase(phase, malicious=False)


STEPS = [Trip.mask, Trip.confirm, Trip.unmask]


def states_by_phase(malicious: bool) -> tuple[Halfway, dict[ClientPhase, Halfway]]:
    """Return the session, and one for each phase that its client 0 can be in."""
    cohort = cohort_of(5, malicious=malicious)
    session = advertised(cohort)
    later = masked(cohort)
    before = replace(later, states=dict(later.states))
    by_phase = {ClientPhase.fitted: session, ClientPhase.masked: before}
    bitmap = later.server.survivor_bitmap
    for place in cohort.places:
        if malicious:
            later.states[place], _ = later.answer(Trip.confirm, place, bitmap)
    return later, by_phase | {later.states[0].phase: later}


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("trip", STEPS)
@pytest.mark.parametrize("phase", [ClientPhase.idle, ClientPhase.done])
def test_a_client_that_holds_nothing_answers_nothing(
    phase: ClientPhase, trip: Trip, malicious: bool
) -> None:
    session = advertised(cohort_of(5, malicious=malicious))
    state = session.states[0]
    session.states[0] = type(state)(phase, state.descriptor, state.roster)
    with pytest.raises(PeerError, match="while this client is"):
        session.answer(trip, 0, session.asked[0])


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("trip", STEPS)
def test_a_real_client_refuses_every_step_that_does_not_come_next(
    trip: Trip, malicious: bool
) -> None:
    last, by_phase = states_by_phase(malicious)
    for phase, session in by_phase.items():
        if (str(phase), str(trip)) in LEGAL[malicious]:
            continue
        before = session.states[0]
        with pytest.raises(PeerError, match="while this client is"):
            session.answer(trip, 0, last.asked[0])
        assert session.states[0] is before


RECEIVE: dict[ServerPhase, Callable[[Server, int, bytes], None]] = {
    ServerPhase.advertising: Server.receive_advertisement,
    ServerPhase.masking: Server.receive_masked,
    ServerPhase.confirming: Server.receive_confirmation,
    ServerPhase.unmasking: Server.receive_shares,
}
CLOSE: dict[ServerPhase, Callable[[Server], object]] = {
    ServerPhase.advertising: Server.close_advertising,
    ServerPhase.masking: Server.close_masking,
    ServerPhase.confirming: Server.close_confirming,
    ServerPhase.unmasking: Server.finish,
}


@pytest.mark.parametrize("malicious", MODES)
@pytest.mark.parametrize("phase", ServerPhase)
def test_the_server_takes_in_every_phase_only_what_belongs_to_it(
    phase: ServerPhase, malicious: bool
) -> None:
    server = masked(cohort_of(5, malicious=malicious)).server
    server.phase = phase
    for wanted in RECEIVE.keys() - {phase}:
        with pytest.raises(PeerError, match=f"answered {wanted} in {phase}"):
            RECEIVE[wanted](server, 0, b"")
        with pytest.raises(MisuseError):
            CLOSE[wanted](server)
        assert server.phase is phase


@pytest.mark.parametrize("phase", set(ServerPhase) - {ServerPhase.unmasking})
def test_nobody_is_asked_to_unmask_before_the_survivors_are_agreed(
    phase: ServerPhase,
) -> None:
    cohort = cohort_of(5)
    server = Server(cohort.descriptor, cohort.roster)
    server.phase = phase
    with pytest.raises(MisuseError, match="no survivor set"):
        server.unmask_request()
