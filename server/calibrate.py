"""Activation ranges from the devices' own data, for int8 (federated calibration).

The coordinator sends a graph that computes ranges, a cohort runs it, and each device
sends one clipped range per tensor. Without secure aggregation each reply is judged by
itself, and a malformed one is left out; with it only the weighted mean is ever seen.

What was found is kept in the run's folder, for the model that it was found for: a run
that was killed and goes on publishes the same release.

Source: the ranges are used as those of Jacob et al. (2018), arXiv:1712.05877, sec. 3.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedge.arrays import Float32, Float64
from fedge.compress.observe import Observed, observed
from fedge.config import RangeStatistic, SecAggMode
from fedge.errors import CompressionError, PeerError
from fedge.flower import SecureSum
from fedge.flower.calibration_records import (
    CALIBRATE,
    CalibrateReply,
    CalibrateRequest,
    secure_ranges_plan,
)
from fedge.flower.layer import answers_to, stream_replies
from fedge.flower.records import content_of_reply
from fedge.release.disk import Disk
from fedge.runtime.ranges import BOUND, NO_RANGES, Ranges, decode
from server.collect import num_clients
from server.coordinator import Wiring
from server.sampler import draw_cohort
from server.setup import Setup

logger = logging.getLogger(__name__)

FILE = "calibration.json"


def calibrate(setup: Setup, wiring: Wiring, fp32_model: bytes, folder: Path) -> Ranges:
    """Return the range of every activation of a model, from a cohort's data.

    Guarantee: called again for the same model and folder it returns the same.

    Args:
        setup: the run.
        wiring: how to reach the devices.
        fp32_model: ONNX file of the trained network.
        folder: of the run.

    Raises:
        CompressionError: too few devices answered usefully in `run.max_attempts` tries;
            nothing must be published.
    """
    watched = observed(fp32_model)
    if watched is None:
        return NO_RANGES
    key = _key(setup, watched)
    found = _stored(folder / FILE, key, watched.names)
    if found is None:
        found = _ask(setup, wiring, watched)
        Disk().write(folder / FILE, _to_text(key, found))
    return found


def _ask(setup: Setup, wiring: Wiring, watched: Observed) -> Ranges:
    """Ask one cohort after another, until one answers well enough."""
    run = setup.experiment.run
    request = _request(setup, watched)
    for attempt in range(run.max_attempts):
        # The round after the last one: another cohort than any that has trained.
        cohort = draw_cohort(wiring.nodes, run, round_index=run.rounds, attempt=attempt)
        group = f"{run.rounds}.{attempt}"
        content = request.to_content()
        messages = [Message(content, n, CALIBRATE, group_id=group) for n in cohort]
        replies, answered = _replies(setup, wiring, request, messages)
        if answered >= run.min_answers and replies:
            logger.info("calibration cohort=%d answered=%d", len(cohort), answered)
            return _merged(replies, watched.names, setup, request.scale)
        logger.warning(
            "calibration, try %d of %d: %d of %d devices answered, need %d",
            attempt + 1,
            run.max_attempts,
            answered,
            len(cohort),
            run.min_answers,
        )
    raise CompressionError(
        f"compression.calibration: federated, but fewer than {run.min_answers} devices "
        f"(run.min_answers) sent usable ranges in {run.max_attempts} tries "
        f"(run.max_attempts); see the log, or set compression.calibration=central"
    )


def _request(setup: Setup, watched: Observed) -> CalibrateRequest:
    secagg = setup.experiment.secagg
    secured = secagg.mode is not SecAggMode.off
    sha256 = hashlib.sha256(watched.graph).hexdigest()
    logger.info("calibration graph: sha256=%s", sha256)
    return CalibrateRequest(
        graph=watched.graph,
        task=setup.task,
        num_tensors=len(watched.names),
        num_examples=setup.experiment.compression.calibration_examples,
        scale=min(secagg.clip, 1.0) if secured else 1.0,
    )


def _replies(
    setup: Setup, wiring: Wiring, request: CalibrateRequest, messages: list[Message]
) -> tuple[list[CalibrateReply], int]:
    """Return the usable replies, by node, and how many devices they stand for."""
    experiment = setup.experiment
    # Not forever, as in a round: there is no next one that would go on without them.
    timeout = experiment.run.deadline_seconds or experiment.release.push_seconds
    good: list[tuple[int, CalibrateReply]] = []
    answered = 0
    with _grid_for(wiring, request) as grid:
        replies = stream_replies(grid, messages, timeout=timeout)
        is_summed = isinstance(grid, SecureSum)
        for reply in replies if is_summed else answers_to(messages, replies):
            node = reply.metadata.src_node_id
            try:
                usable = CalibrateReply.from_content(
                    content_of_reply(reply),
                    num_tensors=request.num_tensors,
                    scale=request.scale,
                )
                if not is_summed:
                    usable.check_order()
            except PeerError as exc:
                logger.warning("node %d left out of the calibration: %s", node, exc)
                continue
            good.append((node, usable))
            answered += num_clients(reply) if is_summed else 1
    return [usable for _, usable in sorted(good, key=lambda pair: pair[0])], answered


@contextmanager
def _grid_for(wiring: Wiring, request: CalibrateRequest) -> Iterator[Grid]:
    """Let a secure sum add ranges for a while; in the clear each reply is looked at.

    Nobody's weight is above the examples that were asked for, so a smaller scale of
    weights holds them, and what the ring has in bits goes to the ranges.
    """
    top = wiring.grid
    if not isinstance(top, SecureSum):
        yield wiring.telemetry
        return
    plan, config = top.plan, top.config
    top.plan = secure_ranges_plan(request.num_tensors)
    most = min(config.max_weight, float(request.num_examples))
    top.config = replace(config, max_weight=most)
    try:
        yield top
    finally:
        top.plan, top.config = plan, config


def _merged(
    replies: Sequence[CalibrateReply],
    names: tuple[str, ...],
    setup: Setup,
    scale: float,
) -> Ranges:
    places = np.stack([reply.places for reply in replies]).astype(np.float64) / scale
    if setup.experiment.compression.range_statistic is RangeStatistic.extremes:
        both = np.stack([places[:, 0].min(axis=0), places[:, 1].max(axis=0)])
    else:
        # A device does not get heavier by claiming more examples than were asked for.
        most = setup.experiment.compression.calibration_examples
        weights = np.array([r.num_examples for r in replies])
        weights = np.minimum(weights, most) if len(replies) > 1 else weights
        both = np.average(places, axis=0, weights=weights)
    return _ranges(names, decode(both))


def _ranges(names: tuple[str, ...], both: Float64) -> Ranges:
    bounded: Float32 = np.clip(both, -BOUND, BOUND).astype(np.float32)
    return Ranges(names, bounded.min(axis=0), bounded.max(axis=0))


# -- what was found, in the run's folder -----------------------------------------------


def _key(setup: Setup, watched: Observed) -> str:
    """Return what a stored result must have been found for."""
    compression = setup.experiment.compression
    wanted = [str(compression.range_statistic), compression.calibration_examples]
    graph = hashlib.sha256(watched.graph).hexdigest()
    return hashlib.sha256(json.dumps([graph, *wanted]).encode()).hexdigest()


def _to_text(key: str, ranges: Ranges) -> bytes:
    # A float32 has an exact form as a Python number, and so in JSON.
    plain = {
        name: [float(low), float(high)]
        for name, low, high in zip(ranges.names, ranges.low, ranges.high, strict=True)
    }
    return json.dumps({"found_for": key, "ranges": plain}, indent=2).encode() + b"\n"


def _stored(path: Path, key: str, names: tuple[str, ...]) -> Ranges | None:
    """Return what was stored for this key; None if there is nothing usable."""
    try:
        plain = json.loads(path.read_bytes())
        if plain["found_for"] != key or tuple(plain["ranges"]) != names:
            return None
        both = np.array([plain["ranges"][name] for name in names], np.float32)
        return Ranges(names, both[:, 0], both[:, 1])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        logger.warning("%s is damaged; the devices are asked again", path)
        return None
