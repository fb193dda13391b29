"""SecureSum: a cohort's training replies become one, and nobody sees a single one.

    strategy.start(SecureSum(grid), initial_arrays, num_rounds=10)

The whole protocol runs inside one `send_and_receive`: the training trip and two short
ones (three in malicious mode). Out comes one synthetic reply with the weighted mean,
the total weight and the means of the named metrics, which any mean-based strategy
accepts. Vectors are added as they arrive: memory for one model, not for the cohort.
"""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence

from flwr.app import Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedge.arrays import Int64
from fedge.config.secagg import SecAggConfig, SecAggMode
from fedge.errors import ConfigError, PeerError, RoundAbortedError
from fedge.flower.introductions import CHALLENGE_BYTES, Cohort, Introductions
from fedge.flower.layer import GridLayer, answers_to, stream_replies
from fedge.flower.masked_total import MaskedReduction, partial_sum_of
from fedge.flower.partial import Reduction, is_partial, nodes_of
from fedge.flower.plain_total import NUM_CLIENTS
from fedge.flower.records import content_of_reply, private_copy
from fedge.flower.secure_messages import (
    RECORD,
    Step,
    bytes_entry,
    request,
    vector_bytes,
)
from fedge.flower.secure_plan import Plan, config_digest, model_digest, plan_for
from fedge.secagg.parameters import default_parameters
from fedge.secagg.ring import PROFILES
from fedge.secagg.server import Server
from fedge.secagg.session import Descriptor
from fedge.secagg.vector import Scale, decode_total, vector_size

logger = logging.getLogger(__name__)

CLIPPED_FRACTION = "clipped-fraction"


class SecureSum(GridLayer):
    """Sums training replies under masks; other messages pass through.

    Guarantee: the sum is exact, whoever drops out when; if it cannot be opened, nothing
    is, and the synthetic reply is missing.

    Attributes:
        config: thresholds, ring, clipping.
        metrics: names of the metrics that are summed; no others leave a device.
        frozen: arrays that are not trained, and so not sent.
        enrolment_key: public key that certifies devices; with it, a device that is not
            certified is left out instead of making all others refuse. It protects
            nobody: devices check for themselves.
        weighted_by_key: the metric that is a reply's weight.
    """

    def __init__(
        self,
        inner: Grid,
        config: SecAggConfig | None = None,
        *,
        metrics: Sequence[str] = (),
        frozen: Sequence[str] = (),
        weighted_by_key: str = "num-examples",
        enrolment_key: bytes = b"",
        plan: Plan | None = None,
        threads: int = 1,
    ) -> None:
        super().__init__(inner)
        self.config = config or SecAggConfig()
        if self.config.mode is SecAggMode.off:
            raise ConfigError("secagg.mode: off; use PlainSum to sum in the clear")
        self.metrics, self.frozen = tuple(metrics), tuple(frozen)
        self.weighted_by_key = weighted_by_key
        self.plan, self._threads = plan, threads
        self._introductions = Introductions(enrolment_key)
        # Clients never go back: milliseconds since 1970 grow with every restart.
        self._run, self._sessions = time.time_ns() // 1_000_000, 0

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield failures as they become known, and one synthetic reply at the end."""
        sent = list(messages)
        if not sent or not sent[0].metadata.message_type.startswith("train"):
            yield from stream_replies(
                self.inner, sent, timeout=timeout, reduction=reduction
            )
            return
        try:
            yield from self._session(sent, timeout)
        except RoundAbortedError as exc:
            logger.warning("secure session %d was aborted: %s", self._sessions, exc)
            error = Error(ErrorCode.MOD_FAILED_PRECONDITION, str(exc))
            yield Message(error, reply_to=sent[0])

    # -- the protocol, trip by trip -------------------------------------------------

    def _session(self, sent: list[Message], timeout: float | None) -> Iterator[Message]:
        content = _common_content(sent)
        cohort = self._introduce(sent)
        plan = self.plan or plan_for(
            content,
            frozen=self.frozen,
            metrics=self.metrics,
            weight=self.weighted_by_key,
        )
        server = Server(self._descriptor(content, plan, cohort), cohort.roster)
        yield from self._advertise(server, cohort, content, plan, timeout)
        yield from self._collect_masked(server, cohort)
        yield from self._confirm(server, cohort)
        yield from self._collect_shares(server, cohort)
        sums = server.finish(threads=self._threads)
        for culprit in sorted(server.culprits):
            # Wrong where it was dealt or where it was returned: no ground for a ban.
            logger.warning("a share through node %d was wrong", cohort.nodes[culprit])
        yield self._synthetic(server, cohort, content, plan, sums)

    def _introduce(self, sent: list[Message]) -> Cohort:
        """Ask new nodes who they are; return the cohort of those that are known."""
        nodes = [message.metadata.dst_node_id for message in sent]
        known, challenge = self._introductions, os.urandom(CHALLENGE_BYTES)
        for reply in self._ask(known.unknown(nodes), sent[0], Step.hello, challenge):
            node = reply.metadata.src_node_id
            try:
                data = bytes_entry(content_of_reply(reply), "data")
                known.receive(node, data, challenge, now=int(time.time()))
            except PeerError as exc:
                logger.warning("node %d takes no part: %s", node, exc)
        known.forget_expired(int(time.time()))
        num_known = len(nodes) - len(known.unknown(nodes))
        if num_known < self.config.min_cohort:
            raise RoundAbortedError(
                f"{num_known} of {len(nodes)} devices can take part in secure "
                f"aggregation, need {self.config.min_cohort} (secagg.min_cohort)"
            )
        return known.cohort(nodes, sent[0])

    def _descriptor(
        self, content: RecordDict, plan: Plan, cohort: Cohort
    ) -> Descriptor:
        n, config = len(cohort.roster), self.config
        degree, threshold = config.degree, config.threshold
        if not degree:
            # The server knows the roster first, so it could try graphs: 2^-80.
            degree, threshold = default_parameters(n, privacy_bits=80)
        elif not threshold:
            threshold = 2 * degree // 3 + 1
        selection = plan.selection(content)
        num_values = plan.num_values if selection is None else int(selection.sum())
        self._sessions += 1
        descriptor = Descriptor(
            run=self._run,
            round_index=self._sessions,
            attempt=0,
            num_participants=n,
            degree=degree,
            threshold=threshold,
            max_corrupt=config.max_corrupt or n // 10,
            min_survivors=config.min_cohort,
            profile=PROFILES[str(config.profile)],
            clip=config.clip,
            max_weight=config.max_weight,
            vector_size=vector_size(num_values, len(plan.metrics)),
            malicious=config.mode is SecAggMode.malicious,
            model_digest=model_digest(content),
            config_digest=config_digest(content, plan.to_json()),
            roster_digest=cohort.roster.digest(),
        )
        try:
            descriptor.check()
        except PeerError as exc:
            raise ConfigError(f"secagg: {exc}") from exc
        return descriptor

    def _advertise(
        self,
        server: Server,
        cohort: Cohort,
        content: RecordDict,
        plan: Plan,
        timeout: float | None,
    ) -> Iterator[Message]:
        whole = private_copy(content)
        whole[RECORD] = request(
            Step.fit,
            descriptor=server.descriptor.to_bytes(),
            roster=cohort.roster.to_bytes(),
            plan=plan.to_json(),
        )
        messages = [_message(whole, node, cohort.template) for node in cohort.nodes]
        replies = stream_replies(self.inner, messages, timeout=timeout)
        for reply in answers_to(messages, replies):
            place = cohort.place_of(reply.metadata.src_node_id)
            try:
                data = bytes_entry(content_of_reply(reply), "data")
                server.receive_advertisement(place, data)
            except PeerError as exc:
                # It may have new keys since it was introduced: ask again next time.
                self._introductions.forget(reply.metadata.src_node_id)
                yield _failure(reply, exc)

    def _collect_masked(self, server: Server, cohort: Cohort) -> Iterator[Message]:
        data_by_place = server.close_advertising()
        proposed = server.descriptor
        size = proposed.profile.bytes_for(proposed.vector_size)
        reduction = MaskedReduction(proposed.profile, proposed.vector_size)
        messages = [
            _message(
                RecordDict({RECORD: request(Step.mask, data=data)}),
                cohort.nodes[place],
                cohort.template,
            )
            for place, data in sorted(data_by_place.items())
        ]
        for reply in self._stream(messages, reduction):
            places = [cohort.place_of(node) for node in nodes_of(reply)]
            try:
                if is_partial(reply):
                    server.receive_masked_sum(places, partial_sum_of(reply.content))
                else:
                    masked = vector_bytes(content_of_reply(reply), size)
                    server.receive_masked(places[0], masked)
            except PeerError as exc:
                yield _failure(reply, exc)

    def _confirm(self, server: Server, cohort: Cohort) -> Iterator[Message]:
        bitmap = server.close_masking()
        if not server.descriptor.malicious:
            return
        for reply in self._ask_survivors(server, cohort, Step.confirm, bitmap):
            place = cohort.place_of(reply.metadata.src_node_id)
            try:
                signature = bytes_entry(content_of_reply(reply), "data")
                server.receive_confirmation(place, signature)
            except PeerError as exc:
                yield _failure(reply, exc)
        server.close_confirming()

    def _collect_shares(self, server: Server, cohort: Cohort) -> Iterator[Message]:
        data = server.unmask_request()
        for reply in self._ask_survivors(server, cohort, Step.unmask, data):
            place = cohort.place_of(reply.metadata.src_node_id)
            try:
                shares = bytes_entry(content_of_reply(reply), "data")
                server.receive_shares(place, shares)
            except PeerError as exc:
                # Its update is in the sum already: it is not a failed device.
                logger.warning(
                    "node %d did not help to unmask: %s",
                    reply.metadata.src_node_id,
                    exc,
                )
        yield from ()

    def _ask_survivors(
        self, server: Server, cohort: Cohort, step: Step, data: bytes
    ) -> Iterator[Message]:
        nodes = [cohort.nodes[place] for place in sorted(server.survivors)]
        return self._ask(nodes, cohort.template, step, data)

    def _ask(
        self, nodes: Sequence[int], template: Message, step: Step, data: bytes = b""
    ) -> Iterator[Message]:
        content = RecordDict({RECORD: request(step, data=data)})
        return self._stream([_message(content, node, template) for node in nodes])

    def _stream(
        self, messages: list[Message], reduction: Reduction | None = None
    ) -> Iterator[Message]:
        replies = stream_replies(
            self.inner,
            messages,
            timeout=self.config.phase_seconds,
            reduction=reduction,
        )
        return answers_to(messages, replies)

    def _synthetic(
        self,
        server: Server,
        cohort: Cohort,
        content: RecordDict,
        plan: Plan,
        sums: Int64,
    ) -> Message:
        proposed, num_survivors = server.descriptor, len(server.survivors)
        num_coordinates = proposed.vector_size - vector_size(0, len(plan.metrics))
        decoded = decode_total(
            sums,
            num_coordinates,
            Scale(proposed.profile, proposed.clip, proposed.max_weight),
            num_survivors=num_survivors,
        )
        if decoded.clipped_fraction > 0.0:
            logger.info("clipped-fraction=%.4g", decoded.clipped_fraction)
        arrays = plan.write_mean(decoded.mean, plan.selection(content), content)
        metrics = MetricRecord(dict(zip(plan.metrics, decoded.metrics, strict=True)))
        metrics[plan.weight] = decoded.weight_sum
        metrics[NUM_CLIENTS] = num_survivors
        metrics[CLIPPED_FRACTION] = decoded.clipped_fraction
        key = next(iter(content.array_records))
        return Message(
            RecordDict({key: arrays, "metrics": metrics}), reply_to=cohort.template
        )


def _common_content(sent: list[Message]) -> RecordDict:
    """Return the content that all messages have.

    Raises:
        ConfigError: they differ, so that their sum would mean nothing.
    """
    first = sent[0].content
    if any(m.content is not first and m.content != first for m in sent[1:]):
        raise ConfigError(
            "secure aggregation needs one model and one configuration for the whole "
            "cohort; this strategy sends different ones"
        )
    return first


def _message(content: RecordDict, node: int, template: Message) -> Message:
    group, kind = template.metadata.group_id, template.metadata.message_type
    return Message(content, node, kind, group_id=group)


def _failure(reply: Message, exc: PeerError) -> Message:
    node = reply.metadata.src_node_id
    logger.warning("node %d left out: %s", node, exc)
    error = Error(ErrorCode.MOD_FAILED_PRECONDITION, str(exc))
    return make_message(reply.metadata, error=error)
