import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from safetensors.numpy import load_file

from clients.app import app as client_app
from fedge.config import Experiment
from fedge.errors import (
    CompressionError,
    ConfigError,
    JournalError,
    RoundAbortedError,
)
from fedge.flower import LocalGrid
from fedge.flower.records import array_of
from fedge.models.resize import shapes_of
from fedge.train.evaluate import evaluate
from server.app import JOURNAL, coordinate
from server.events import LogObserver
from server.journal import RoundRecord, read_rounds
from server.narrow import fitted
from server.settings import compose_experiment
from server.setup import prepare
from simulations.federation import simulate_federation

FAST = [
    "run=quick",
    "model=logistic",
    "train.epochs=1",
    "fleet.num_devices=8",
    "run.rounds=3",
    "run.cohort=4",
    "release=none",
    "data.max_examples=400",
    "secagg=off",
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def experiment_of(*overrides: str) -> Experiment:
    return compose_experiment([*FAST, *overrides])


@dataclass
class Watcher:
    """Remembers what it is told; stops the run after a round, like Ctrl-C would."""

    stop_after: int = -1
    rounds: list[RoundRecord] = field(default_factory=list)
    first_round: int = -1

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        self.first_round = first_round

    def round_finished(self, record: RoundRecord) -> None:
        self.rounds.append(record)
        if record.round_index == self.stop_after:
            raise KeyboardInterrupt

    def stage_started(self, stage: str) -> None:
        raise AssertionError(f"no stage was asked for: {stage}")


def run(
    experiment: Experiment,
    folder: Path,
    *,
    app: ClientApp = client_app,
    stop_after: int = -1,
    workers: int | None = None,
) -> Watcher:
    watcher = Watcher(stop_after)
    num_devices = experiment.fleet.num_devices
    grid = LocalGrid(app, num_clients=num_devices, workers=workers, batching=False)
    coordinate(grid, experiment, folder, watcher)
    return watcher


def model_in(folder: Path) -> bytes:
    return (folder / "last.safetensors").read_bytes()


def summary_in(folder: Path) -> dict[str, object]:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(summary, dict)
    return summary


def app_with(broken: Callable[[int, Message], bool]) -> ClientApp:
    """The real app; a training message that `broken` chooses fails."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if broken(context.node_id, message):
            raise RuntimeError("the battery is empty")
        return client_app(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return client_app(message, context)

    return app


def test_a_run_learns_and_leaves_its_results(tmp_path: Path) -> None:
    watcher = run(experiment_of("run.rounds=6"), tmp_path)
    summary = summary_in(tmp_path)
    assert [record.round_index for record in watcher.rounds] == list(range(6))
    assert watcher.rounds[-1].score > 0.6
    assert all(record.answered == record.asked == 4 for record in watcher.rounds)
    assert watcher.rounds[0].bytes_down > 4 * 4 * 650
    assert summary["rounds"] == 6
    assert summary["accuracy_fp32"] == watcher.rounds[-1].score
    assert summary["accuracy_shipped"] is None
    assert (tmp_path / "best.safetensors").exists()
    assert repr(read_rounds(tmp_path / JOURNAL)) == repr(watcher.rounds)


def test_the_same_settings_end_in_the_same_model(tmp_path: Path) -> None:
    run(experiment_of(), tmp_path / "a")
    run(experiment_of(), tmp_path / "b")
    run(experiment_of("run.seed=1"), tmp_path / "c")
    assert model_in(tmp_path / "a") == model_in(tmp_path / "b")
    assert model_in(tmp_path / "a") != model_in(tmp_path / "c")


STRATEGIES = [
    ["strategy=fedadam", "compression.sparsity=0.5"],
    ["strategy=fedavgm", "fleet.drop_probability=0.4"],
    ["strategy=flower", "strategy._target_=flwr.serverapp.strategy.FedMedian"],
    ["strategy=flower", "strategy._target_=flwr.serverapp.strategy.FedAdam"],
]


@pytest.mark.parametrize("overrides", STRATEGIES)
@pytest.mark.parametrize("stop_after", [0, 1])
def test_an_interrupted_run_ends_in_the_same_model(
    tmp_path: Path, overrides: Sequence[str], stop_after: int
) -> None:
    experiment = experiment_of(*overrides, "run.over_sampling=0.5")
    whole = run(experiment, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "parts", stop_after=stop_after)
    assert not (tmp_path / "parts" / "last.safetensors").exists()
    rest = run(experiment, tmp_path / "parts")
    assert rest.first_round == stop_after + 1
    assert model_in(tmp_path / "parts") == model_in(tmp_path / "whole")
    assert (tmp_path / "parts" / "best.safetensors").read_bytes() == (
        tmp_path / "whole" / "best.safetensors"
    ).read_bytes()
    assert [r.score for r in rest.rounds] == [
        r.score for r in whole.rounds[stop_after + 1 :]
    ]


def test_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    experiment = experiment_of()
    run(experiment, tmp_path)
    model = model_in(tmp_path)
    assert run(experiment, tmp_path).rounds == []
    assert model_in(tmp_path) == model


def test_a_folder_belongs_to_one_set_of_settings(tmp_path: Path) -> None:
    run(experiment_of(), tmp_path)
    with pytest.raises(JournalError, match=r"run.seed: 0 there, 1 here"):
        run(experiment_of("run.seed=1"), tmp_path)
    elsewhere = experiment_of()
    elsewhere.data.root = str(tmp_path)
    elsewhere.run.resume = str(tmp_path)
    assert run(elsewhere, tmp_path).rounds == []


def test_a_failing_device_is_reported_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_with(lambda node, message: node in (2, 3, 4))
    with caplog.at_level(logging.WARNING):
        watcher = run(experiment_of("run.cohort=8"), tmp_path, app=app)
    assert [(r.asked, r.answered, r.failed) for r in watcher.rounds] == [(8, 5, 3)] * 3
    assert "node 3 left out: RuntimeError: the battery is empty" in caplog.text
    assert watcher.rounds[-1].score > 0.3


HOSTILE: dict[str, Callable[[RecordDict], None]] = {
    "another size": lambda content: content.array_records["arrays"].update(
        delta=array_of(np.zeros(3, np.float32))
    ),
    "one more array": lambda content: content.array_records["arrays"].update(
        more=array_of(np.zeros(3, np.float32))
    ),
    "one more metric": lambda content: content.metric_records["metrics"].update(more=1),
    "speaks for a thousand": lambda content: content.metric_records["metrics"].update(
        {"num-clients": 1000}
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_stranger_who_answers_first_does_not_spoil_the_round(
    tmp_path: Path, name: str
) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = client_app(message, context)
        if context.node_id == 2:
            HOSTILE[name](reply.content)
        return reply

    watcher = run(experiment_of("run.cohort=8", "run.rounds=1"), tmp_path, app=app)
    assert [(r.asked, r.answered, r.failed) for r in watcher.rounds] == [(8, 7, 1)]


def test_devices_that_drop_out_are_counted(tmp_path: Path) -> None:
    experiment = experiment_of("fleet.drop_probability=0.5", "run.cohort=8")
    watcher = run(experiment, tmp_path)
    assert all(r.answered + r.failed == 8 for r in watcher.rounds)
    assert 0 < sum(r.failed for r in watcher.rounds) < 24


@pytest.mark.parametrize("overrides", [STRATEGIES[0], STRATEGIES[2]])
def test_over_sampling_uses_exactly_the_cohorts_size(
    tmp_path: Path, overrides: Sequence[str]
) -> None:
    app = app_with(lambda node, message: node == 2)
    experiment = experiment_of(*overrides, "run.over_sampling=1.0")
    watcher = run(experiment, tmp_path, app=app)
    assert all((r.asked, r.answered) == (8, 4) for r in watcher.rounds)
    assert all(r.failed == 1 for r in watcher.rounds)


def test_too_few_answers_are_tried_again_with_another_cohort(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def first_try_fails(node: int, message: Message) -> bool:
        asked.append((message.metadata.group_id, node))
        return message.metadata.group_id == "1.0"

    experiment = experiment_of("run.min_answers=3")
    watcher = run(experiment, tmp_path, app=app_with(first_try_fails), workers=0)
    assert [record.attempts for record in watcher.rounds] == [1, 2, 1]
    cohorts = {g: {n for h, n in asked if h == g} for g, _ in asked}
    assert cohorts["1.0"] != cohorts["1.1"]
    assert all(record.answered == 4 for record in watcher.rounds)


def test_a_round_that_stays_lost_stops_the_run_and_it_can_be_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def from_round_2(node: int, message: Message) -> bool:
        return message.metadata.group_id.startswith("1.")

    experiment = experiment_of("run.min_answers=2", "run.max_attempts=2")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(RoundAbortedError, match=r"round 2 failed 2 times \(run\.max"),
    ):
        run(experiment, tmp_path / "lost", app=app_with(from_round_2))
    assert "0 of 4 devices answered, need 2 (run.min_answers); 4 failed" in caplog.text
    assert len(read_rounds(tmp_path / "lost" / JOURNAL)) == 1
    rest = run(experiment, tmp_path / "lost")
    run(experiment, tmp_path / "fine")
    assert rest.first_round == 1
    assert model_in(tmp_path / "lost") == model_in(tmp_path / "fine")


def test_pruning_reaches_its_sparsity(tmp_path: Path) -> None:
    experiment = experiment_of("compression.sparsity=0.5", "run.rounds=4")
    watcher = run(experiment, tmp_path)
    sparsities = [record.sparsity for record in watcher.rounds]
    assert sparsities == sorted(sparsities)
    assert sparsities[-1] == 0.5
    from safetensors.numpy import load

    weights = max(load(model_in(tmp_path)).values(), key=lambda array: array.size)
    assert (weights == 0).mean() == pytest.approx(0.5, abs=0.01)


def test_the_cohort_can_evaluate_too(tmp_path: Path) -> None:
    experiment = experiment_of("run.evaluate_on_devices=true", "run.evaluate_every=2")
    watcher = run(experiment, tmp_path)
    measured = [r.device_score == r.device_score for r in watcher.rounds]
    assert measured == [False, True, True]
    assert [r.score == r.score for r in watcher.rounds] == [False, True, True]


def test_a_deadline_that_nobody_meets_loses_the_round(tmp_path: Path) -> None:
    experiment = experiment_of("run.deadline_seconds=1e-9", "run.max_attempts=1")
    with pytest.raises(RoundAbortedError, match="round 1 failed 1 times"):
        run(experiment, tmp_path)


def test_the_log_has_one_line_for_each_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = experiment_of("run.rounds=2")
    grid = LocalGrid(client_app, num_clients=8)
    with caplog.at_level(logging.INFO, logger="server.events"):
        coordinate(grid, experiment, tmp_path, LogObserver())
    assert [m.split()[0] for m in caplog.messages] == ["rounds", "round=1", "round=2"]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    import sqlite3

    experiment = experiment_of()
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path, stop_after=0)
    with closing(sqlite3.connect(tmp_path / JOURNAL)) as connection:
        connection.execute("UPDATE checkpoints SET state = x'00'")
        connection.commit()
    with pytest.raises(JournalError, match="the state 'last' is damaged"):
        run(experiment, tmp_path)


NARROWING = [
    "model=mlp",
    "model.widths=[16]",
    "run.rounds=5",
    "compression=small",
    "compression.channel_steps=2",
    "compression.channel_multiple=1",
    "strategy=fedavgm",
    "compression.channel_sparsity=0.7",
]


def test_channels_go_while_the_model_trains(tmp_path: Path) -> None:
    run(experiment_of(*NARROWING), tmp_path)
    arrays = load_file(tmp_path / "last.safetensors")
    # 70 % of 16 hidden units are gone: 5 are left.
    assert arrays["1.weight"].shape == (5, 64)
    assert arrays["4.weight"].shape == (10, 5)
    assert summary_in(tmp_path)["bytes_fp32"] == 4 * (64 * 16 + 16 + 16 * 10 + 10)
    rounds = read_rounds(tmp_path / JOURNAL)
    assert rounds[-1].bytes_up < 0.7 * rounds[0].bytes_up


def test_the_best_model_is_the_one_that_was_judged(tmp_path: Path) -> None:
    settings = [*NARROWING, "run.rounds=2", "compression.channel_sparsity=0.9"]
    settings += ["compression.channel_begin=0.5", "compression.channel_end=0.5"]
    watcher = run(experiment_of(*settings), tmp_path)
    best = max(watcher.rounds, key=lambda record: record.score)
    setup = prepare(experiment_of(*settings))
    arrays = load_file(tmp_path / "best.safetensors")
    shapes = {name: arrays[name].shape for name in shapes_of(setup.model)}
    setup = fitted(setup, shapes)
    params = setup.spec.flatten(arrays)
    judged = evaluate(setup.model, params, setup.data.test, setup.data.info)
    assert judged.score == best.score


def test_channels_go_under_secure_aggregation(tmp_path: Path) -> None:
    experiment = experiment_of(*NARROWING, "secagg=semi_honest", "run.cohort=6")
    simulate_federation(experiment, tmp_path)
    assert load_file(tmp_path / "last.safetensors")["1.weight"].shape == (5, 64)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_run_that_was_stopped_around_a_step_ends_in_the_same_model(
    tmp_path: Path, stop_after: int
) -> None:
    experiment = experiment_of(*NARROWING)
    run(experiment, tmp_path / "whole", workers=0)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "stopped", workers=0, stop_after=stop_after)
    resumed = run(experiment, tmp_path / "stopped", workers=0)
    assert resumed.first_round == stop_after + 1
    assert model_in(tmp_path / "stopped") == model_in(tmp_path / "whole")


def test_devices_train_for_the_shipped_form_in_the_last_rounds(tmp_path: Path) -> None:
    forms: set[tuple[int, str]] = set()

    def seen(_: int, message: Message) -> bool:
        config = message.content.config_records["config"]
        forms.add((int(str(config["round"])), str(config["weight-form"])))
        return False

    settings = ["compression.quantization=int4", "compression.qat_rounds=2"]
    run(experiment_of(*settings), tmp_path / "int4", app=app_with(seen), workers=0)
    assert forms == {(0, ""), (1, "int4"), (2, "int4")}
    rates = [
        record.learning_rate for record in read_rounds(tmp_path / "int4" / JOURNAL)
    ]
    assert rates == pytest.approx([0.05, 0.005, 0.005])
    run(experiment_of("compression.quantization=int4"), tmp_path / "none", workers=0)
    assert model_in(tmp_path / "int4") != model_in(tmp_path / "none")


def test_training_for_a_form_works_under_secure_aggregation(tmp_path: Path) -> None:
    settings = ["compression.quantization=int4", "compression.qat_rounds=1"]
    secure = ["secagg=semi_honest", "run.cohort=6"]
    simulate_federation(experiment_of(*settings, *secure), tmp_path / "secure")
    simulate_federation(experiment_of(*settings, "run.cohort=6"), tmp_path / "plain")
    secured, plain = (
        load_file(tmp_path / name / "last.safetensors") for name in ("secure", "plain")
    )
    for name, values in plain.items():
        np.testing.assert_allclose(secured[name], values, atol=0.02)


def test_a_model_without_channels_is_refused_before_the_first_round(
    tmp_path: Path,
) -> None:
    experiment = experiment_of("compression=small")  # logistic regression
    with pytest.raises(CompressionError, match="channel_sparsity=0"):
        run(experiment, tmp_path)
    assert not (tmp_path / JOURNAL).exists()


def test_a_model_that_devices_could_not_build_is_refused_before_the_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_norms.py").write_text(OWN_MODEL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    own = ["model.builder=my_norms:build", "run.allow=[my_norms]"]
    with pytest.raises(ConfigError, match="GroupNorm, which cannot be resized"):
        run(experiment_of("compression=small", *own), tmp_path / "run")
    assert not (tmp_path / "run" / JOURNAL).exists()


OWN_MODEL = """
from torch import nn

def build(info):
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.GroupNorm(1, 32), nn.Flatten(), nn.Linear(32 * 36, 10)
    )
"""
