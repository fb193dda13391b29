"""Two nodes of a Ray cluster, on one machine: the same replies as a LocalGrid's."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedge.config import SecAggConfig, SecAggMode
from fedge.errors import ConfigError, TransportError
from fedge.flower import LocalGrid, PlainSum, SecureSum, stream_replies
from fedge.flower.partial import is_partial, nodes_of
from fedge.flower.plain_total import PlainReduction
from fedge.flower.ray_grid import RayGrid
from tests.fedge.flower import ray_clients
from tests.fedge.flower.ray_clients import NUM_CLIENTS, model_content
from tests.ray_zombies import reap_zombies

pytestmark = [
    pytest.mark.integration,
    # Ray leaves files and processes to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODULE = "tests.fedge.flower.ray_clients"
NODE: dict[str, Any] = {
    "num_cpus": 3,  # a worker of the shared grid, and some of a test's own
    "object_store_memory": 100 << 20,
    "include_dashboard": False,
}
PLACES = list(range(NUM_CLIENTS))
# A node that is gone is missed after a second, not after half a minute.
FAST = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 300,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster of two nodes; the driver is on the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        from ray.cluster_utils import Cluster

        found = Cluster(
            initialize_head=True, head_node_args=NODE | {"_system_config": FAST}
        )
        found.add_node(**NODE, num_gpus=1)
        yield found
        found.shutdown()  # type: ignore[no-untyped-call]
        reap_zombies()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def shared(cluster: Any, folder: Path) -> Iterator[RayGrid]:  # noqa: ANN401
    with RayGrid(
        clients=f"{MODULE}:make",
        arguments=json.dumps({"folder": str(folder)}),
        num_clients=NUM_CLIENTS,
        address=cluster.address,
        workers=2,
    ) as grid:
        yield grid


@pytest.fixture
def ray_grid(shared: RayGrid, folder: Path) -> RayGrid:
    """Return the grid of all tests; nobody has killed an actor yet."""
    (folder / "done").unlink(missing_ok=True)
    return shared


def messages(kind: str, content: RecordDict | None = None) -> list[Message]:
    content = content or RecordDict()
    return [Message(content, 2 + i, kind, group_id="1") for i in PLACES]


def ask(grid: Grid, kind: str) -> list[Message]:
    return list(grid.send_and_receive(messages(kind)))


def numbers(replies: Sequence[Message], name: str) -> list[object]:
    return [reply.content["m"][name] for reply in replies]


def until_all_work(grid: Grid, actors: int) -> int:
    """Ask slow questions until every actor answers some; return how often.

    A busy machine starts one actor seconds after another, which meanwhile does
    all the work.
    """
    for asked in range(1, 61):
        replies = ask(grid, "query.slowly")
        assert numbers(replies, "place") == PLACES
        if len(set(numbers(replies, "pid"))) == actors:
            return asked
    pytest.fail(f"{actors} actors never worked at the same time")


def train(grid: Grid, kind: str = "train") -> list[Message]:
    return list(grid.send_and_receive(messages(kind, model_content())))


def digest(replies: Sequence[Message]) -> str:
    found = hashlib.sha256()
    for reply in replies:
        for record in reply.content.array_records.values():
            for array in record.values():
                found.update(array.data)
        found.update(repr(sorted(reply.content["metrics"].items())).encode())
    return found.hexdigest()


def test_replies_come_from_both_nodes_in_the_order_of_the_messages(
    ray_grid: RayGrid,
) -> None:
    assert ray_grid.get_node_ids() == range(2, 2 + NUM_CLIENTS)
    until_all_work(ray_grid, actors=2)


def secure(grid: Grid) -> Grid:
    config = SecAggConfig(mode=SecAggMode.semi_honest, max_weight=32.0, min_cohort=5)
    return SecureSum(grid, config)


@pytest.mark.parametrize("layer", [lambda grid: grid, PlainSum])
def test_replies_and_sums_are_those_of_a_local_grid_bit_for_bit(
    ray_grid: RayGrid, layer: Callable[[Grid], Grid]
) -> None:
    found = digest(train(layer(ray_grid)))
    for workers in (0, 2):
        with LocalGrid(
            ray_clients.app, num_clients=NUM_CLIENTS, workers=workers
        ) as local:
            assert digest(train(layer(local))) == found


def test_a_secure_sum_is_that_of_a_local_grid_bit_for_bit(cluster: Any) -> None:  # noqa: ANN401
    with RayGrid.of_app(
        f"{MODULE}:secure_app",
        num_clients=NUM_CLIENTS,
        address=cluster.address,
        workers=1,
    ) as grid:
        found = digest(train(secure(grid)))
    for workers in (0, 2):
        with LocalGrid(
            ray_clients.secure_app, num_clients=NUM_CLIENTS, workers=workers
        ) as local:
            assert digest(train(secure(local))) == found


def test_actors_add_replies_up_and_tell_failures(ray_grid: RayGrid) -> None:
    asked = messages("train.seldom", model_content())
    replies = list(ray_grid.stream(asked, reduction=PlainReduction()))
    failed = [reply for reply in replies if reply.has_error()]
    assert [r.error.reason for r in failed] == ["RuntimeError: the battery is empty"]
    (total,) = [reply for reply in replies if is_partial(reply)]
    assert sorted(nodes_of(total)) == [2 + i for i in PLACES if i != 3]


def test_a_sum_is_exact_although_an_actor_is_killed_in_the_middle(
    ray_grid: RayGrid, folder: Path
) -> None:
    disturbed = train(PlainSum(ray_grid), "train.seldom")
    assert (folder / "done").exists()
    undisturbed = train(PlainSum(ray_grid), "train.seldom")
    assert digest(disturbed[-1:]) == digest(undisturbed[-1:])
    assert disturbed[-1].content["metrics"]["num-clients"] == NUM_CLIENTS - 1


def test_states_survive_the_actor_that_is_killed(
    ray_grid: RayGrid, folder: Path
) -> None:
    before = numbers(ask(ray_grid, "query"), "times")
    replies = ask(ray_grid, "query.lethal")
    assert (folder / "done").exists()
    assert numbers(replies, "place") == PLACES
    assert numbers(replies, "times") == [times + 1 for times in before]  # type: ignore[operator]
    after = numbers(ask(ray_grid, "query"), "times")
    assert after == [times + 2 for times in before]  # type: ignore[operator]


def test_a_client_that_kills_its_process_is_told_apart(ray_grid: RayGrid) -> None:
    replies = ask(ray_grid, "query.fatal")
    (failed,) = [reply for reply in replies if reply.has_error()]
    assert failed.metadata.src_node_id == 2 + 5
    assert failed.error.reason == "its process was killed by SIGKILL"


def test_a_node_that_goes_loses_no_reply_and_no_state(cluster: Any) -> None:  # noqa: ANN401
    extra = cluster.add_node(**NODE)
    with RayGrid.of_app(
        f"{MODULE}:app", num_clients=NUM_CLIENTS, address=cluster.address, workers=3
    ) as grid:
        asked = until_all_work(grid, actors=3)
        replies = []
        for reply in stream_replies(grid, messages("query.slowly")):
            replies.append(reply)
            if len(replies) == 1:
                cluster.remove_node(extra, allow_graceful=False)
        assert numbers(replies, "place") == PLACES
        assert numbers(replies, "times") == [asked] * NUM_CLIENTS
        after = ask(grid, "query")
        assert numbers(after, "times") == [asked + 1] * NUM_CLIENTS
        assert len(set(numbers(after, "pid"))) <= 2


def test_time_that_is_up_starts_nobody_and_the_grid_goes_on(ray_grid: RayGrid) -> None:
    asked = messages("query.slowly")
    assert list(ray_grid.send_and_receive(asked, timeout=0.0)) == []
    some = list(ray_grid.send_and_receive(asked, timeout=0.5))
    assert len(some) < NUM_CLIENTS
    assert numbers(ask(ray_grid, "query"), "place") == PLACES


def test_sums_of_what_was_computed_in_time(ray_grid: RayGrid, folder: Path) -> None:
    (folder / "done").touch()  # nobody is killed
    asked = messages("train.seldom", model_content())
    replies = list(ray_grid.stream(asked, timeout=0.05, reduction=PlainReduction()))
    nodes = [n for reply in replies if is_partial(reply) for n in nodes_of(reply)]
    assert len(set(nodes)) == len(nodes) < NUM_CLIENTS


def test_a_request_that_is_given_up_does_not_disturb_the_next(
    ray_grid: RayGrid,
) -> None:
    stream = ray_grid.stream(messages("query.slowly"))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert numbers(ask(ray_grid, "query"), "place") == PLACES


def test_unknown_nodes_and_two_messages_to_one(ray_grid: RayGrid) -> None:
    asked = [Message(RecordDict(), node, "query") for node in (99, 3, 3)]
    unknown, first, second = ray_grid.send_and_receive(asked)
    assert unknown.error.reason == "node 99 is not in this grid"
    assert numbers([first, second], "place") == [1, 1]
    earlier, later = numbers([first, second], "times")
    assert later == earlier + 1  # type: ignore[operator]


def test_pushed_messages_are_answered_once_when_they_are_pulled(
    ray_grid: RayGrid,
) -> None:
    ids = list(ray_grid.push_messages(messages("query")[:2]))
    replies = list(ray_grid.pull_messages([ids[1], "unknown", ids[0]]))
    assert numbers(replies, "place") == [1, 0]
    assert list(ray_grid.pull_messages(ids)) == []


def test_workers_see_the_gpu_that_ray_gives_them(cluster: Any) -> None:  # noqa: ANN401
    with RayGrid.of_app(
        f"{MODULE}:app", num_clients=2, address=cluster.address, gpus_per_worker=0.5
    ) as grid:
        asked = [Message(RecordDict(), node, "query.environment") for node in (2, 3)]
        assert numbers(list(grid.send_and_receive(asked)), "gpus") == [1, 1]


@pytest.mark.parametrize(
    ("clients", "says"),
    [
        ("nowhere:make", "'nowhere:make' cannot be imported"),
        (f"{MODULE}:nothing", "has no attribute 'nothing'"),
        (f"{MODULE}:fail", "fail failed: ModuleNotFoundError: No module named 'skl"),
        (f"{MODULE}:too_few", "the Clients of 12 clients, not those of 1"),
    ],
)
def test_clients_that_cannot_be_made_are_told(
    cluster: Any,  # noqa: ANN401
    clients: str,
    says: str,
) -> None:
    grid = RayGrid(
        clients=clients, num_clients=NUM_CLIENTS, address=cluster.address, workers=1
    )
    with pytest.raises(ConfigError, match=says):
        grid.start()


def test_when_no_actor_is_left_the_request_fails(cluster: Any) -> None:  # noqa: ANN401
    with RayGrid.of_app(
        f"{MODULE}:app", num_clients=1, address=cluster.address, workers=1
    ) as grid:
        with pytest.raises(TransportError, match="no actor is left"):
            list(grid.send_and_receive([Message(RecordDict(), 2, "query.hopeless")]))
        (reply,) = grid.send_and_receive([Message(RecordDict(), 2, "query")])
        assert numbers([reply], "place") == [0]


def test_numbers_out_of_range_are_refused() -> None:
    for wrong in ({"num_clients": 0}, {"workers": 0}, {"gpus_per_worker": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            RayGrid(**({"clients": "a:b", "num_clients": 3} | wrong))  # type: ignore[arg-type]
