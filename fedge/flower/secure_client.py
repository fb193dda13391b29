"""The client's half of secure aggregation for Flower: a mod.

    app = ClientApp(mods=[secure_mod])

The app's own training handler runs as ever; its reply never leaves the device. What
leaves is keys, shares, and the reply's arrays and metrics under masks. A training
message that does not belong to a session is refused: a server cannot talk a client out
of secure aggregation.
"""

import time
from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedge.errors import PeerError
from fedge.flower.credentials import credentials_of, policy_of
from fedge.flower.records import content_of_reply, private_copy
from fedge.flower.secure_messages import (
    RECORD,
    VECTOR,
    Step,
    answer,
    bytes_entry,
    step_of,
    text_entry,
    vector_record,
)
from fedge.flower.secure_plan import Plan, config_digest, model_digest
from fedge.secagg.client import ClientState, advertise, confirm, mask, unmask
from fedge.secagg.joining import Session, join
from fedge.secagg.packing import pack
from fedge.secagg.policy import Counter
from fedge.secagg.roster import Credentials
from fedge.secagg.transitions import ClientPhase
from fedge.secagg.vector import Scale, encode_update, vector_size

_STATE, _COUNTER = "fedge.secagg.state", "fedge.secagg.counter"
_CODES = "fedge.secagg.codes"
Train = Callable[[Message, Context], Message]


def secure_mod(message: Message, context: Context, call_next: Train) -> Message:
    """Answer one step of a session, or pass on what is not training.

    Raises:
        PeerError: the step is not acceptable; nothing was revealed or changed.
        ConfigError: this client's own credentials are incomplete.
    """
    step = step_of(message.content)
    if step is None:
        if message.metadata.message_type.partition(".")[0] == "train":
            raise PeerError(
                "this client trains under secure aggregation only; put a SecureSum "
                "layer on the server's grid"
            )
        return call_next(message, context)
    credentials = credentials_of(context)
    match step:
        case Step.hello:
            content = answer(_introduce(message, credentials))
        case Step.fit:
            content = _fit(message, context, call_next, credentials)
        case Step.mask:
            content = _mask(message, context, credentials)
        case Step.confirm:
            content = _confirm(message, context, credentials)
        case Step.unmask:
            content = _unmask(message, context, credentials)
    return Message(content, reply_to=message)


def _introduce(message: Message, credentials: Credentials) -> bytes:
    """Say who this is, and prove it: nobody can take another's place in a roster."""
    challenge = bytes_entry(message.content, "data")
    signature = credentials.identity.sign("hello", challenge)
    return credentials.member.to_bytes() + signature


def _fit(
    message: Message, context: Context, call_next: Train, credentials: Credentials
) -> RecordDict:
    request = private_copy(message.content)
    del request[RECORD]
    text = text_entry(message.content, "plan")
    plan = Plan.from_json(text)
    session = join(
        bytes_entry(message.content, "descriptor"),
        bytes_entry(message.content, "roster"),
        credentials,
        policy_of(context),
        last=_counter_of(context),
        model_digest=model_digest(request),
        config_digest=config_digest(request, text),
        now=int(time.time()),
    )
    # The handler gets records of its own: what it does to them changes nothing here.
    message.content = private_copy(request)
    reply = content_of_reply(call_next(message, context))
    codes = _encode(session, plan, reply, request)
    state, advertisement = advertise(session, codes, credentials)
    _store_counter(context, Counter.of(session.descriptor))
    _store(context, state)
    return answer(advertisement)


def _encode(
    session: Session, plan: Plan, reply: RecordDict, request: RecordDict
) -> bytes:
    proposed = session.descriptor
    update, selection = plan.read_reply(reply, request), plan.selection(request)
    if selection is not None:
        update = update[selection]
    if proposed.vector_size != vector_size(update.size, len(plan.metrics)):
        raise PeerError("session: the vector's length does not fit the plan")
    weight, *metrics = _numbers(reply, (plan.weight, *plan.metrics))
    scale = Scale(proposed.profile, proposed.clip, proposed.max_weight)
    try:
        codes = encode_update(update, weight, metrics, scale)
    except ValueError as exc:
        raise PeerError(f"this client's own update: {exc}") from exc
    return pack(codes, proposed.profile)


def _numbers(reply: RecordDict, names: tuple[str, ...]) -> list[float]:
    records = list(reply.metric_records.values())
    if len(records) != 1:
        raise PeerError(f"reply: {len(records)} metric records, need one")
    values = [records[0].get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, int | float):
            raise PeerError(f"reply: no number under the metric {name!r}")
    return [float(v) for v in values if isinstance(v, int | float)]


def _mask(message: Message, context: Context, credentials: Credentials) -> RecordDict:
    state = _load(context)
    state, masked = mask(state, bytes_entry(message.content, "data"), credentials)
    _store(context, state)
    return RecordDict({VECTOR: vector_record(masked)})


def _confirm(
    message: Message, context: Context, credentials: Credentials
) -> RecordDict:
    state = _load(context)
    data = bytes_entry(message.content, "data")
    state, signature = confirm(state, data, credentials)
    _store(context, state)
    return answer(signature)


def _unmask(message: Message, context: Context, credentials: Credentials) -> RecordDict:
    state = _load(context)
    state, shares = unmask(state, bytes_entry(message.content, "data"), credentials)
    _store(context, state)
    return answer(shares)


# -- between two messages a client may be another process: its state is records --------


def _store(context: Context, state: ClientState) -> None:
    peers = sorted(state.shares)
    record = {
        "phase": str(state.phase),
        "descriptor": state.descriptor,
        "roster": state.roster,
        "mask-key": state.mask_key,
        "seed": state.seed,
        "peers": peers,
        "seed-shares": [state.shares[peer][0] for peer in peers],
        "key-shares": [state.shares[peer][1] for peer in peers],
    }
    context.state[_STATE] = ConfigRecord(record)  # type: ignore[arg-type]  # mixed lists
    context.state[_CODES] = vector_record(state.codes)


def _load(context: Context) -> ClientState:
    record, codes = context.state.get(_STATE), context.state.get(_CODES)
    if not isinstance(record, ConfigRecord) or not isinstance(codes, ArrayRecord):
        raise PeerError(
            "the server goes on with a session that this client never began"
        )
    stored = dict(record)
    shares = zip(stored["seed-shares"], stored["key-shares"], strict=True)  # type: ignore[arg-type]
    return ClientState(
        ClientPhase(str(stored["phase"])),
        bytes(stored["descriptor"]),  # type: ignore[arg-type]
        bytes(stored["roster"]),  # type: ignore[arg-type]
        codes=codes["data"].data,
        mask_key=bytes(stored["mask-key"]),  # type: ignore[arg-type]
        seed=bytes(stored["seed"]),  # type: ignore[arg-type]
        shares=dict(zip(stored["peers"], shares, strict=True)),  # type: ignore[arg-type]
    )


def _counter_of(context: Context) -> Counter | None:
    record = context.state.get(_COUNTER)
    if not isinstance(record, ConfigRecord):
        return None
    run, round_index, attempt = (record[n] for n in ("run", "round", "attempt"))
    return Counter(int(run), int(round_index), int(attempt))  # type: ignore[arg-type]


def _store_counter(context: Context, counter: Counter) -> None:
    context.state[_COUNTER] = ConfigRecord(
        {
            "run": counter.run,
            "round": counter.round_index,
            "attempt": counter.attempt,
        }
    )
