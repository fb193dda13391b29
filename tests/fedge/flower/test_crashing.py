"""Clients crash as their fates say, alone, and with the rest of the run going on."""

import os

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.config import CrashKind, FaultsConfig
from fedge.flower import LocalGrid
from fedge.flower.batching import together, together_of
from fedge.flower.crashing import crash_mod, with_mod

NODES = range(2, 42)


def counting_app() -> ClientApp:
    """An app that keeps in its context how often its handler has run."""
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        runs = int(str(context.state.config_records["n"]["n"])) if context.state else 0
        context.state["n"] = ConfigRecord({"n": runs + 1})
        content = RecordDict({"m": MetricRecord({"runs": runs + 1})})
        return Message(content, reply_to=message)

    app.train()(handle)
    app.evaluate()(handle)
    return app


def crashing_grid(kind: CrashKind, *, workers: int = 0, seed: int = 0) -> LocalGrid:
    config = FaultsConfig(client_crash=0.2, client_crash_kind=kind)
    mod = crash_mod(config, seed=seed, coordinator_pid=os.getpid())
    app = with_mod(counting_app(), mod)
    return LocalGrid(app, num_clients=len(NODES), workers=workers)


def ask(grid: LocalGrid, group: str = "0.0", kind: str = "train") -> list[Message]:
    messages = [Message(RecordDict(), n, kind, group_id=group) for n in NODES]
    return list(grid.stream(messages))


def crashed(replies: list[Message]) -> list[int]:
    return [r.metadata.src_node_id for r in replies if r.has_error()]


def test_about_one_in_five_fails_and_says_why() -> None:
    replies = ask(crashing_grid(CrashKind.error))
    failed = [reply for reply in replies if reply.has_error()]
    # 40 draws of 0.2: 8, with a standard deviation of 2.5.
    assert 2 <= len(failed) <= 16
    assert all("faults.client_crash" in str(reply.error.reason) for reply in failed)


def test_who_crashes_depends_on_seed_and_group() -> None:
    fate = crashed(ask(crashing_grid(CrashKind.error)))
    assert crashed(ask(crashing_grid(CrashKind.error))) == fate
    assert crashed(ask(crashing_grid(CrashKind.error, seed=1))) != fate
    assert crashed(ask(crashing_grid(CrashKind.error), "0.1")) != fate


def test_only_training_crashes() -> None:
    assert crashed(ask(crashing_grid(CrashKind.error), kind="evaluate")) == []


def test_a_device_that_crashes_has_done_nothing() -> None:
    grid = crashing_grid(CrashKind.error)
    failed = set(crashed(ask(grid)))
    runs = {
        reply.metadata.src_node_id: reply.content.metric_records["m"]["runs"]
        for reply in ask(grid, kind="evaluate")
    }
    assert {runs[node] for node in NODES if node not in failed} == {2}
    assert {runs[node] for node in failed} == {1}


def test_the_coordinators_process_is_never_killed() -> None:
    # Without workers the clients run in here.
    grid = crashing_grid(CrashKind.kill)
    assert crashed(ask(grid)) == crashed(ask(crashing_grid(CrashKind.error)))


@pytest.mark.integration
def test_a_killed_worker_costs_the_clients_that_die_and_no_others() -> None:
    with crashing_grid(CrashKind.kill, workers=2) as grid:
        replies = ask(grid)
        pids = set(grid.worker_pids)
        again = ask(grid, "1.0")
    expected = crashed(ask(crashing_grid(CrashKind.error)))
    assert crashed(replies) == expected
    assert [r.metadata.src_node_id for r in replies] == list(NODES)
    assert crashed(again) == crashed(ask(crashing_grid(CrashKind.error), "1.0"))
    assert os.getpid() not in pids


def test_a_mod_around_an_app_keeps_what_the_app_can_do() -> None:
    app = ClientApp()

    @together(app)
    def stacked(pairs: object) -> dict[str, object]:
        return {}

    config = FaultsConfig(client_crash=0.5)
    wrapped = with_mod(app, crash_mod(config, seed=0, coordinator_pid=os.getpid()))
    assert together_of(wrapped) is together_of(app) is not None
