"""A request that comes bit by bit gives the same replies and sums as a whole one."""

from collections.abc import Iterator, Sequence

import pytest
from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message

from fedge.flower import LocalGrid
from fedge.flower.client_runner import Clients
from fedge.flower.client_states import ClientStates
from fedge.flower.growing_pool import GrowingPool
from fedge.flower.job import Job, describe
from fedge.flower.partial import nodes_of
from fedge.flower.plain_total import PlainReduction
from fedge.flower.worker_limits import Limits
from tests.fedge.flower import ray_clients
from tests.fedge.flower.ray_clients import NUM_CLIENTS, model_content


@pytest.fixture
def states() -> ClientStates:
    return ClientStates()


@pytest.fixture
def pool(states: ClientStates) -> Iterator[GrowingPool]:
    LocalGrid(ray_clients.app, num_clients=1)  # makes this process a task
    pool = GrowingPool(
        Clients(ray_clients.app, NUM_CLIENTS),
        num_workers=2,
        limits=Limits(),
        client_seconds=0.0,
        states=states,
    )
    yield pool
    pool.close()


def messages(kind: str, nodes: Sequence[int]) -> list[Message]:
    content = model_content()
    made = [Message(content, node, kind, group_id="1") for node in nodes]
    for number, message in enumerate(made):
        message.metadata.__dict__["_message_id"] = str(number)
    return made


def give(pool: GrowingPool, asked: Sequence[Message]) -> None:
    bare = [make_message(message.metadata, RecordDict()) for message in asked]
    pool.give(bare, [0] * len(bare), [0] * len(bare), [])
    pool.advance(None)


def finish(pool: GrowingPool, job: Job) -> dict[int, Message]:
    answers: dict[int, Message] = {}
    is_all = False
    while not is_all:
        is_all = pool.finish(None)
        answers |= job.answers
        job.answers = {}
    return answers


def times(reply: Message) -> object:
    return reply.content["m"]["times"]


def ask_one(pool: GrowingPool) -> object:
    asked = messages("query", [2])
    told = describe(asked, None)
    job = pool.begin(told.structure, told.blobs)
    give(pool, asked)
    return times(finish(pool, job)[0])


def test_all_clients_answer_wherever_the_request_is_cut(pool: GrowingPool) -> None:
    asked = messages("query", range(2, 2 + NUM_CLIENTS))
    for cut in (0, 1, 5, NUM_CLIENTS):
        told = describe(asked, None)
        job = pool.begin(told.structure, told.blobs)
        for part in (asked[:cut], asked[cut:]):
            give(pool, part)
        assert sorted(finish(pool, job)) == list(range(NUM_CLIENTS))


def test_more_may_come_after_the_sums_were_handed_over(pool: GrowingPool) -> None:
    asked = messages("train", range(2, 2 + NUM_CLIENTS))
    told = describe(asked, PlainReduction())
    job = pool.begin(told.structure, told.blobs)
    for part in (asked[:5], asked[5:]):
        give(pool, part)
        assert finish(pool, job) == {}
    (total,) = job.partials()
    assert sorted(nodes_of(total)) == list(range(2, 2 + NUM_CLIENTS))


def test_what_is_not_concluded_is_not_computed(pool: GrowingPool) -> None:
    asked = messages("train.seldom", range(2, 2 + NUM_CLIENTS))
    told = describe(asked, PlainReduction())
    job = pool.begin(told.structure, told.blobs)
    bare = [make_message(message.metadata, RecordDict()) for message in asked]
    pool.give(bare, [0] * len(bare), [0] * len(bare), [])
    pool.advance(0.0)  # time is up already: only the first chunks are in hand
    pool.conclude()
    nodes = [node for total in job.partials() for node in nodes_of(total)]
    assert 0 < len(nodes) < NUM_CLIENTS


def test_a_state_that_is_brought_replaces_the_workers_own(
    pool: GrowingPool, states: ClientStates
) -> None:
    assert ask_one(pool) == 0
    after_one = states.kept(2)
    assert after_one is not None
    assert ask_one(pool) == 1
    states.bring(2, *after_one)
    assert ask_one(pool) == 1
    states.send_away(2)
    assert ask_one(pool) == 0
