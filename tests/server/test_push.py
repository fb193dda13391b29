import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.app import app as client_app
from fedge.config import Experiment
from fedge.errors import ConfigError
from fedge.flower import LocalGrid
from fedge.flower.local_grid import UserConfig
from fedge.flower.wire import EvaluateReply, ReleaseReply
from fedge.release.install import installed_model, trust_store
from fedge.release.keys import KeyRing
from fedge.release.repository import ReleaseRepository
from server.app import JOURNAL, connect, coordinate
from server.publish import Published, publish
from server.push import push
from server.settings import compose_experiment
from server.setup import Setup, prepare


class Silent:
    """Watches a run without a word."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def run_started(self, *, first_round: int, num_rounds: int) -> None:
        """Do nothing."""

    def round_finished(self, record: object) -> None:
        """Do nothing."""

    def stage_started(self, stage: str) -> None:
        self.stages.append(stage)


def settings() -> Experiment:
    overrides = ["run=quick", "model=logistic", "fleet.num_devices=3", "run.cohort=3"]
    overrides += ["secagg=off"]
    overrides += ["run.min_answers=1", "compression=none", "data.max_examples=300"]
    return compose_experiment([*overrides, "train.epochs=1"])


def provision(run_folder: Path, devices: list[Path]) -> None:
    keys = KeyRing.create(run_folder / "keys", root_keys=3, root_threshold=2)
    repository = ReleaseRepository.open(
        run_folder / "releases", keys, expiry_days=30.0, now=datetime.now(UTC)
    )
    for device in devices:
        trust_store(device).provision(repository.trusted_root())


@dataclass(frozen=True)
class Fleet:
    """A finished run: devices 0 and 1 trust its root, device 2 another one."""

    folder: Path
    setup: Setup
    devices: list[Path]
    published: Published

    def grid(self, app: ClientApp = client_app) -> LocalGrid:
        def node_config(index: int) -> UserConfig:
            return {"device-dir": str(self.devices[index]), "secagg": "optional"}

        return LocalGrid(app, num_clients=3, node_config=node_config)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("push")
    devices = [base / f"device-{index}" for index in range(3)]
    provision(base / "run", devices[:2])
    provision(base / "stranger", devices[2:])
    experiment = settings()
    setup = prepare(experiment)
    incomplete = Fleet(base / "run", setup, devices, None)  # type: ignore[arg-type]  # not yet
    watcher = Silent()
    coordinate(incomplete.grid(), experiment, base / "run", watcher)
    assert watcher.stages[-1] == "pushing to the devices"
    from safetensors.numpy import load

    arrays = load((base / "run" / "last.safetensors").read_bytes())
    params = setup.spec.flatten(arrays)
    published = publish(setup, params, base / "run", Silent(), sparsity=0.0)
    return Fleet(base / "run", setup, devices, published)


def test_devices_that_trust_the_root_run_the_release(fleet: Fleet) -> None:
    installed = [installed_model(device) for device in fleet.devices]
    assert [found[1].version for found in installed[:2] if found] == [1, 1]
    assert installed[2] is None


def test_a_device_with_another_root_refuses_and_counts_as_failed(fleet: Fleet) -> None:
    summary = json.loads((fleet.folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["devices_on_release"] == 2
    assert summary["devices_failed"] == 1
    assert summary["devices_rolled_back"] == 0
    assert 0.0 <= summary["device_score"] <= 1.0
    assert summary["device_latency_ms"] > 0.0


def test_publishing_again_is_the_same_release(fleet: Fleet) -> None:
    assert fleet.published.passport.version == 1
    rollout = push(
        fleet.setup, connect(fleet.grid(), fleet.setup, fleet.folder), fleet.published
    )
    assert (rollout.devices, rollout.on_release, rollout.failed) == (3, 2, 1)


def answering(reply: ReleaseReply, evaluated: EvaluateReply) -> ClientApp:
    """Devices that say this; what they really do is another matter."""
    app = ClientApp()

    @app.query("release")
    def release(message: Message, context: Context) -> Message:
        return Message(reply.to_content(), reply_to=message)

    @app.evaluate("release")
    def evaluate(message: Message, context: Context) -> Message:
        return Message(evaluated.to_content(), reply_to=message)

    return app


FINE = EvaluateReply(0.5, 0.9, 10.0, 1.0, 1)
STORIES = {
    "all fine": (ReleaseReply(1, "installed"), FINE, (3, 0, 0)),
    "again": (ReleaseReply(1, "already_installed"), FINE, (3, 0, 0)),
    "unhealthy": (ReleaseReply(0, "rolled_back", "slow"), FINE, (0, 3, 0)),
    "no such outcome": (ReleaseReply(1, "sold"), FINE, (0, 0, 3)),
    "an older one": (
        ReleaseReply(1, "installed"),
        EvaluateReply(0.5, 0.9, 10.0, 1.0, 0),
        (0, 0, 3),
    ),
    "no examples": (
        ReleaseReply(1, "installed"),
        EvaluateReply(0.5, 0.9, 0.0, 1.0, 1),
        (0, 0, 3),
    ),
    "score nan": (
        ReleaseReply(1, "installed"),
        EvaluateReply(0.5, float("nan"), 1.0, 1.0, 1),
        (0, 0, 3),
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_every_device_is_counted_once(fleet: Fleet, story: str) -> None:
    reply, evaluated, expected = STORIES[story]
    wiring = connect(fleet.grid(answering(reply, evaluated)), fleet.setup, fleet.folder)
    rollout = push(fleet.setup, wiring, fleet.published)
    counts = (rollout.on_release, rollout.rolled_back, rollout.failed)
    assert counts == expected
    assert (rollout.device_score == rollout.device_score) == (expected[0] > 0)


def test_a_fleet_that_answers_nothing_is_counted(fleet: Fleet) -> None:
    wiring = connect(fleet.grid(ClientApp()), fleet.setup, fleet.folder)
    rollout = push(fleet.setup, wiring, fleet.published)
    assert (rollout.on_release, rollout.failed) == (0, 3)


def test_without_keys_a_release_says_what_to_do(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs signing keys in .* release=none"):
        coordinate(fleet.grid(), settings(), tmp_path, Silent())
    assert not (tmp_path / JOURNAL).exists()  # told before the training, not after
