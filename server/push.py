"""Pushing a release to every device, and hearing how it runs there."""

import logging
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from fedge.errors import PeerError
from fedge.flower.entries import CONFIG
from fedge.flower.layer import stream_replies
from fedge.flower.records import content_of_reply
from fedge.flower.release_records import content_of
from fedge.flower.wire import (
    EVALUATE_RELEASE,
    RELEASE,
    EvaluateReply,
    ReleaseReply,
)
from server.coordinator import Wiring
from server.publish import Published
from server.setup import Setup

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rollout:
    """What became of a release on the fleet.

    Attributes:
        devices: devices it was pushed to.
        on_release: devices that run it now.
        rolled_back: devices where it failed its health check.
        failed: devices that did not answer, or refused it.
        device_score: mean score on the devices' own data, in their runtime; NaN if none
            answered.
        device_latency_ms: median over the devices of their time for one example.
    """

    devices: int
    on_release: int
    rolled_back: int
    failed: int
    device_score: float
    device_latency_ms: float


def push(setup: Setup, wiring: Wiring, published: Published) -> Rollout:
    """Push to all devices, then let those that installed it run it on their own data.

    A device that fails is counted and logged; the others go on.
    """
    installed, rolled_back = _install_everywhere(setup, wiring, published)
    replies = _evaluate(setup, wiring, installed)
    replies = [r for r in replies if r.version == published.passport.version]
    weights = np.array([reply.num_examples for reply in replies])
    scores = np.array([reply.score for reply in replies])
    latencies = [reply.latency_ms for reply in replies]
    return Rollout(
        devices=len(wiring.nodes),
        on_release=len(replies),
        rolled_back=rolled_back,
        failed=len(wiring.nodes) - len(replies) - rolled_back,
        device_score=float(scores @ weights / weights.sum()) if replies else np.nan,
        device_latency_ms=float(np.median(latencies)) if replies else np.nan,
    )


def _install_everywhere(
    setup: Setup, wiring: Wiring, published: Published
) -> tuple[list[int], int]:
    content = content_of(published.bundle)
    messages = [Message(content, node, RELEASE) for node in wiring.nodes]
    installed, rolled_back = [], 0
    for reply in stream_replies(
        wiring.grid, messages, timeout=setup.experiment.release.push_seconds
    ):
        node = reply.metadata.src_node_id
        try:
            answer = ReleaseReply.from_content(content_of_reply(reply))
        except PeerError as exc:
            logger.warning("node %d did not install the release: %s", node, exc)
            continue
        if answer.outcome == "rolled_back":
            rolled_back += 1
            logger.warning("node %d rolled back: %s", node, answer.reason)
        else:
            installed.append(node)
    return sorted(installed), rolled_back


def _evaluate(setup: Setup, wiring: Wiring, nodes: list[int]) -> list[EvaluateReply]:
    content = RecordDict({CONFIG: ConfigRecord({"task": setup.task})})
    messages = [Message(content, node, EVALUATE_RELEASE) for node in nodes]
    answers = []
    for reply in stream_replies(
        wiring.grid, messages, timeout=setup.experiment.release.push_seconds
    ):
        try:
            answers.append(EvaluateReply.from_content(content_of_reply(reply)))
        except PeerError as exc:
            logger.warning("node %d: %s", reply.metadata.src_node_id, exc)
    return answers
