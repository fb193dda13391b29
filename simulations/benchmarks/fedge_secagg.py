"""This project's secure aggregation for one round in this process, timed part by part.

Server and clients are the real ones; only the network, training and the model that goes
down are left out, as in `flower_secagg`. Clients run one after the other, so that no
more than a few vectors are held whatever the cohort's size.
"""

import statistics
from dataclasses import dataclass, replace

import numpy as np

from fedge.arrays import Int64
from fedge.secagg.client import ClientState, advertise, mask, unmask
from fedge.secagg.identity import FAST_AES, SigningKey
from fedge.secagg.joining import join
from fedge.secagg.packing import pack
from fedge.secagg.policy import Policy
from fedge.secagg.ring import PROFILES, decode_sum
from fedge.secagg.roster import Credentials, Roster, enroll
from fedge.secagg.server import Server
from fedge.secagg.session import Descriptor
from fedge.secagg.vector import Scale, decode_total, encode_update, vector_size
from simulations.benchmarks.flower_secagg import MAX_WEIGHT, Case, Cost, Stopwatch

_CLIP, _NOT_AFTER, _NOW = 1.0, 2_000_000_000, 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Round:
    """A session, everybody who takes part, and where time is counted."""

    case: Case
    descriptor: Descriptor
    roster: Roster
    credentials: tuple[Credentials, ...]
    policy: Policy
    watch: Stopwatch

    @property
    def scale(self) -> Scale:
        return Scale(self.descriptor.profile, _CLIP, MAX_WEIGHT)


def run_fedge(case: Case) -> Cost:
    """Return what one round of this project's protocol costs."""
    work = _prepared(case)
    watch, server = work.watch, Server(work.descriptor, work.roster)
    states, upload_bytes = _trip_1(work, server)
    with watch.on("server"):
        requests = server.close_advertising()
    expected: Int64 = np.zeros(work.descriptor.vector_size, np.int64)
    for index in case.survivors:
        masked, codes = _masked(work, states, index, requests[index])
        expected += codes
        upload_bytes[index] += len(masked)
        with watch.on("server"):
            server.receive_masked(index, masked)
    sums = _trip_3(work, server, states, upload_bytes)
    clients = (watch[f"join {i}"] + watch[f"client {i}"] for i in case.survivors)
    return Cost(
        unmask_seconds=watch["unmask"],
        server_seconds=watch["server"] + watch["unmask"],
        client_seconds=statistics.median(clients),
        upload_bytes=upload_bytes[case.survivors[0]],
        first_join_seconds=watch["join 0"],
        is_right=bool(np.array_equal(sums, expected)),
    )


def _prepared(case: Case) -> _Round:
    enrolment = SigningKey.generate()
    devices = tuple(
        enroll(enrolment, uid=index + 1, caps=FAST_AES, not_after=_NOT_AFTER)
        for index in range(case.num_clients)
    )
    roster = Roster(device.member for device in devices)
    descriptor = Descriptor(
        run=1,
        round_index=0,
        attempt=0,
        num_participants=case.num_clients,
        degree=case.degree,
        threshold=case.threshold,
        max_corrupt=0,
        min_survivors=5,
        profile=PROFILES[case.profile],
        clip=_CLIP,
        max_weight=MAX_WEIGHT,
        vector_size=vector_size(case.num_params, 0),
        malicious=False,
        model_digest=bytes(32),
        config_digest=bytes(32),
        roster_digest=roster.digest(),
    )
    # The graph of the case, which is the one that Flower is given.
    policy = Policy(min_degree=2, enrolment_key=enrolment.public)
    return _Round(case, descriptor, roster, devices, policy, Stopwatch())


def _trip_1(
    work: _Round, server: Server
) -> tuple[dict[int, ClientState], dict[int, int]]:
    """Have everybody advertise; return the states, and what each has sent, bytes."""
    descriptor, roster = work.descriptor.to_bytes(), work.roster.to_bytes()
    blank = bytes(work.descriptor.profile.bytes_for(work.descriptor.vector_size))
    states, upload_bytes = {}, {}
    for index, own in enumerate(work.credentials):
        with work.watch.on(f"join {index}"):
            session = join(
                descriptor,
                roster,
                own,
                work.policy,
                last=None,
                model_digest=bytes(32),
                config_digest=bytes(32),
                now=_NOW,
            )
        with work.watch.on(f"client {index}"):
            # Held by the client between two trips, so made when it is needed here.
            state, message = advertise(session, blank, own)
        states[index] = replace(state, codes=b"", roster=roster)
        upload_bytes[index] = len(message)
        with work.watch.on("server"):
            server.receive_advertisement(index, message)
    return states, upload_bytes


def _masked(
    work: _Round, states: dict[int, ClientState], index: int, request: bytes
) -> tuple[bytes, Int64]:
    """Return a client's masked update, and its codes as integers to compare with."""
    update, weight = work.case.update(index), work.case.weight(index)
    with work.watch.on(f"client {index}"):
        codes = encode_update(update, weight, (), work.scale)
        packed = pack(codes, work.scale.profile)
        before = replace(states[index], codes=packed)
        after, masked = mask(before, request, work.credentials[index])
    states[index] = replace(after, roster=before.roster)
    return masked, decode_sum(codes, work.scale.profile)


def _trip_3(
    work: _Round,
    server: Server,
    states: dict[int, ClientState],
    upload_bytes: dict[int, int],
) -> Int64:
    """Unmask; return the sums of the codes."""
    watch, case = work.watch, work.case
    with watch.on("unmask"):
        server.close_masking()
        request = server.unmask_request()
    for index in case.survivors:
        _, answer = unmask(states[index], request, work.credentials[index])
        upload_bytes[index] += len(answer)
        with watch.on("unmask"):
            server.receive_shares(index, answer)
    with watch.on("unmask"):
        sums = server.finish()
        decode_total(
            sums, case.num_params, work.scale, num_survivors=len(case.survivors)
        )
    return sums
