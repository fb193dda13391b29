"""Which node is which device: node ids in the order of the devices' places.

Flower gives nodes arbitrary ids. Cohorts are drawn by a device's place in the fleet, so
that a run is the same in every runtime.
"""

import logging
import time
from collections.abc import Sequence

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedge.errors import PeerError, TransportError
from fedge.flower.layer import stream_replies
from fedge.flower.records import content_of_reply
from fedge.flower.wire import DESCRIBE, Description

logger = logging.getLogger(__name__)
_WAIT_SECONDS = 300.0
_POLL_SECONDS = 1.0


def roster(
    grid: Grid, num_devices: int, *, wait_seconds: float = _WAIT_SECONDS
) -> Sequence[int]:
    """Return the node ids of all devices, ordered by partition id.

    Args:
        grid: the base grid.
        num_devices: devices that must be there.
        wait_seconds: how long to wait for them to connect and answer.

    Raises:
        TransportError: too few devices connected or answered in time.
    """
    known = grid.get_node_ids()
    if isinstance(known, range):  # a simulator's: in order already, perhaps a million
        return _first(known, num_devices)
    deadline = time.monotonic() + wait_seconds
    while len(nodes := list(grid.get_node_ids())) < num_devices:
        if time.monotonic() > deadline:
            raise TransportError(
                f"{len(nodes)} of {num_devices} devices (fleet.num_devices) connected "
                f"within {wait_seconds:.0f} s"
            )
        time.sleep(min(_POLL_SECONDS, wait_seconds))
    node_by_place = _ask(grid, nodes, deadline - time.monotonic())
    missing = [i for i in range(num_devices) if i not in node_by_place]
    if missing:
        raise TransportError(
            f"{len(missing)} of {num_devices} devices did not say who they are; the "
            f"first has partition-id {missing[0]}"
        )
    return [node_by_place[place] for place in range(num_devices)]


def _first(nodes: Sequence[int], num_devices: int) -> Sequence[int]:
    if len(nodes) < num_devices:
        raise TransportError(
            f"the grid has {len(nodes)} of {num_devices} devices (fleet.num_devices)"
        )
    return nodes[:num_devices]


def _ask(grid: Grid, nodes: list[int], timeout: float) -> dict[int, int]:
    messages = [Message(RecordDict(), node, DESCRIBE) for node in nodes]
    node_by_place: dict[int, int] = {}
    for reply in stream_replies(grid, messages, timeout=max(timeout, 1.0)):
        node = reply.metadata.src_node_id
        try:
            place = Description.from_content(content_of_reply(reply)).partition_id
        except PeerError as exc:
            logger.warning("node %d left out: %s", node, exc)
            continue
        if node_by_place.setdefault(place, node) != node:
            logger.warning("node %d left out: partition-id %d is taken", node, place)
    return node_by_place
