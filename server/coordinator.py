"""The round loop: ask a cohort, apply the strategy, prune, evaluate, commit.

Everything that a round depends on is in the settings and in the journal's last
checkpoint, so a run that was killed anywhere goes on to the same model.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedge.compress.prune import pack_mask
from fedge.compress.schedule import sparsity_at
from fedge.errors import PeerError, RoundAbortedError
from fedge.flower import PlainSum, SecureSum
from fedge.flower.layer import stream_replies
from fedge.flower.records import content_of_reply
from fedge.flower.telemetry import Telemetry, Traffic
from fedge.flower.wire import (
    EVALUATE,
    TRAIN,
    EvaluateReply,
    EvaluateRequest,
    TrainRequest,
    secure_plan,
    train_reply_layout,
)
from fedge.stopwatch import measure
from fedge.train.evaluate import evaluate
from fedge.train.schedule import learning_rate
from server.collect import Answers, collect
from server.events import Observer
from server.graphs import offering
from server.journal import Journal, RoundRecord
from server.model_state import (
    ModelState,
    advance,
    initial_state,
    prototype,
    pruned,
    sparsity_of,
)
from server.narrow import fitted, narrow
from server.sampler import draw_cohort
from server.setup import Setup
from server.state_codec import from_bytes, to_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wiring:
    """How the coordinator reaches its devices.

    Attributes:
        grid: the top of the stack of layers; one that sums knows the model's size.
        telemetry: the layer that counts, somewhere in that stack.
        nodes: node ids of all devices, in the order of their partition ids.
    """

    grid: Grid
    telemetry: Telemetry
    nodes: Sequence[int]

    def resize(self, size: int) -> None:
        """Let the grid expect models of so many coordinates from now on."""
        if isinstance(self.grid, PlainSum):
            self.grid.expect = train_reply_layout(size)
        elif isinstance(self.grid, SecureSum):
            self.grid.plan = secure_plan(size)


@dataclass(frozen=True, slots=True)
class _Try:
    """One try of one round.

    Attributes:
        round_index: the round, from 0.
        attempt: the try, from 0.
        nodes: node ids of the devices that are asked.
    """

    round_index: int
    attempt: int
    nodes: Sequence[int]


def train(
    setup: Setup, wiring: Wiring, journal: Journal, observer: Observer
) -> tuple[Setup, ModelState]:
    """Run the rounds that are not in the journal yet.

    Returns:
        The final state, and the setup for its network, which may have become narrower.

    Raises:
        RoundAbortedError: a round failed in each of `run.max_attempts` tries. What was
            committed before stays; the run can be resumed.
        JournalError: the journal is damaged, or a round could not be stored.
    """
    run = setup.experiment.run
    state = initial_state(setup.strategy, setup.initial_params, setup.spec)
    journal.begin(to_bytes(state))
    checkpoint = journal.last()
    first_round = 0
    if checkpoint is not None:
        state = from_bytes(prototype(state), checkpoint.state)
        first_round = checkpoint.round_index + 1
        if state.shapes:
            setup = fitted(setup, state.shapes)
            wiring.resize(setup.spec.size)
    best = max((r.score for r in journal.rounds() if r.score == r.score), default=None)
    observer.run_started(first_round=first_round, num_rounds=run.rounds)
    for round_index in range(first_round, run.rounds):
        setup = offering(setup, setup.strategy.local(state.strategy_state))
        state, record = _round(setup, wiring, state, round_index)
        is_best = record.score == record.score and (best is None or record.score > best)
        # What was judged, which may be about to lose channels.
        judged = to_bytes(state) if is_best else None
        old = setup
        setup, state = narrow(setup, state, round_index=round_index + 1)
        if setup is not old:
            wiring.resize(setup.spec.size)
            state = _pruned(setup, state, round_index)
        with measure("journal"):
            journal.commit(record, to_bytes(state), best=judged)
        best = record.score if is_best else best
        observer.round_finished(record)
    return setup, state


def _round(
    setup: Setup, wiring: Wiring, state: ModelState, round_index: int
) -> tuple[ModelState, RoundRecord]:
    """Run one round; try again with another cohort if it is lost."""
    run = setup.experiment.run
    for attempt in range(run.max_attempts):
        started, before = time.perf_counter(), _traffic(wiring)
        cohort = draw_cohort(
            wiring.nodes, run, round_index=round_index, attempt=attempt
        )
        this = _Try(round_index, attempt, cohort)
        try:
            answers = _ask(setup, wiring, state, this)
            state = _next_state(setup, state, answers, round_index)
        except RoundAbortedError as exc:
            logger.warning(
                "round %d, try %d of %d is lost: %s",
                round_index + 1,
                attempt + 1,
                run.max_attempts,
                exc,
            )
            continue
        record = _record(setup, wiring, state, this, answers)
        traffic = _traffic(wiring)
        return state, replace(
            record,
            bytes_down=traffic.bytes_down - before.bytes_down,
            bytes_up=traffic.bytes_up - before.bytes_up,
            seconds=time.perf_counter() - started,
        )
    raise RoundAbortedError(
        f"round {round_index + 1} failed {run.max_attempts} times (run.max_attempts); "
        f"see the log for each try's reason; what was finished before is kept"
    )


def _ask(setup: Setup, wiring: Wiring, state: ModelState, this: _Try) -> Answers:
    run = setup.experiment.run
    with measure("making messages"):
        messages = _train_messages(setup, state, this)
    with measure("summing"):  # all that the grid below does not count for itself
        answers = collect(
            wiring.grid,
            messages,
            needs=setup.strategy.needs,
            size=setup.spec.size,
            enough=run.cohort,
            timeout=run.deadline_seconds or None,
        )
    if answers.answered < run.min_answers:
        raise RoundAbortedError(
            f"{answers.answered} of {len(messages)} devices answered, need "
            f"{run.min_answers} (run.min_answers); {answers.failed} failed"
        )
    return answers


def _train_messages(setup: Setup, state: ModelState, this: _Try) -> list[Message]:
    content = _train_request(setup, state, this.round_index).to_content()
    group = f"{this.round_index}.{this.attempt}"
    return [Message(content, node, TRAIN, group_id=group) for node in this.nodes]


def _train_request(setup: Setup, state: ModelState, round_index: int) -> TrainRequest:
    return TrainRequest(
        params=state.params,
        packed_mask=None if state.mask is None else pack_mask(state.mask),
        task=setup.task,
        spec_digest=setup.spec.digest,
        round_index=round_index,
        learning_rate=_learning_rate(setup, round_index),
        local=setup.strategy.local(state.strategy_state),
        weight_form=_weight_form(setup, round_index),
        graph=setup.graphs.train if setup.graphs else None,
    )


def _weight_form(setup: Setup, round_index: int) -> str:
    """Return what devices round their weights to: the shipped form, in the last rounds.

    Source: Krishnamoorthi (2018), arXiv:1806.08342: training for quantization is best
    started from a model trained in float.
    """
    config = setup.experiment.compression
    left = setup.experiment.run.rounds - round_index
    return str(config.quantization) if left <= config.qat_rounds else ""


def _learning_rate(setup: Setup, round_index: int) -> float:
    rate = learning_rate(
        setup.experiment.train,
        round_index=round_index,
        num_rounds=setup.experiment.run.rounds,
    )
    factor = setup.experiment.compression.qat_rate_factor
    return rate * factor if _weight_form(setup, round_index) else rate


def _next_state(
    setup: Setup, state: ModelState, answers: Answers, round_index: int
) -> ModelState:
    if answers.total is None:
        raise RoundAbortedError("nobody answered")
    with measure("strategy"):
        advanced = advance(state, answers.total, setup.strategy, setup.spec)
    with measure("pruning"):
        # What the next round trains is what this one leaves: prune for that one.
        return _pruned(setup, advanced, round_index)


def _pruned(setup: Setup, state: ModelState, round_index: int) -> ModelState:
    """Return the state as the round after this one needs it."""
    sparsity = _sparsity(setup, round_index + 1)
    return pruned(state, setup.spec, sparsity, setup.experiment.compression)


def _sparsity(setup: Setup, round_index: int) -> float:
    return sparsity_at(
        setup.experiment.compression,
        round_index=round_index,
        num_rounds=setup.experiment.run.rounds,
    )


def _record(
    setup: Setup, wiring: Wiring, state: ModelState, this: _Try, answers: Answers
) -> RoundRecord:
    """Return the round's record, evaluated if it is due; costs are filled in later."""
    run, round_index = setup.experiment.run, this.round_index
    loss = score = device_score = float("nan")
    if (round_index + 1) % run.evaluate_every == 0 or round_index + 1 == run.rounds:
        with measure("evaluating"):
            result = evaluate(
                setup.model, state.params, setup.data.test, setup.data.info
            )
        loss, score = result.loss, result.score
        if run.evaluate_on_devices:
            with measure("evaluating on devices"):
                device_score = _score_on_devices(setup, wiring, state, this.nodes)
    return RoundRecord(
        round_index=round_index,
        attempts=this.attempt + 1,
        asked=len(this.nodes),
        answered=answers.answered,
        failed=answers.failed,
        examples=answers.examples,
        train_loss=answers.train_loss,
        loss=loss,
        score=score,
        device_score=device_score,
        learning_rate=_learning_rate(setup, round_index),
        sparsity=sparsity_of(state, setup.spec),
        bytes_down=0,
        bytes_up=0,
        seconds=0.0,
    )


def _score_on_devices(
    setup: Setup, wiring: Wiring, state: ModelState, nodes: Sequence[int]
) -> float:
    """Return the mean score on the devices' own data, by number of examples."""
    graph = setup.graphs.evaluate if setup.graphs else None
    request = EvaluateRequest(state.params, setup.task, setup.spec.digest, graph)
    content = request.to_content()
    messages = [Message(content, node, EVALUATE) for node in nodes]
    timeout = setup.experiment.run.deadline_seconds or None
    replies = []
    for reply in stream_replies(wiring.grid, messages, timeout=timeout):
        try:
            replies.append(EvaluateReply.from_content(content_of_reply(reply)))
        except PeerError as exc:
            logger.warning("node %d left out: %s", reply.metadata.src_node_id, exc)
    weights = np.array([reply.num_examples for reply in replies])
    scores = np.array([reply.score for reply in replies])
    return float(scores @ weights / weights.sum()) if replies else float("nan")


def _traffic(wiring: Wiring) -> Traffic:
    return wiring.telemetry.snapshot().get(TRAIN, Traffic())
