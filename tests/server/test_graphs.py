"""Training graphs in a run: offered, given up with a reason, and worth it."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clients.app import app
from fedge.config import Experiment
from fedge.flower import LocalGrid
from fedge.strategy import LocalSettings
from server.app import coordinate
from server.events import LogObserver
from server.graphs import offering
from server.journal import RoundRecord
from server.settings import compose_experiment
from server.setup import OfferedGraphs, Setup, prepare, resized
from simulations.federation import simulate_federation

PLAIN = ["run=quick", "release=none", "secagg=off", "compression=none", "model=mlp"]
ONNX = "train.backend=onnx"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def experiment_of(*overrides: str) -> Experiment:
    return compose_experiment([*PLAIN, *overrides])


def accuracy_in(folder: Path) -> float:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return float(summary["accuracy_fp32"])


def test_nothing_is_exported_unless_it_is_asked_for() -> None:
    setup = prepare(experiment_of())
    assert offering(setup, LocalSettings()) is setup


def test_a_model_outside_the_limits_falls_back_to_torch_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = experiment_of(
        ONNX, "model.dropout=0.2", "run.rounds=2", "engine.workers=0"
    )
    with caplog.at_level(logging.WARNING, "server.graphs"):
        simulate_federation(experiment, tmp_path)
    (warning,) = (r for r in caplog.records if r.name == "server.graphs")
    assert "set model.dropout=0" in warning.getMessage()
    assert accuracy_in(tmp_path) > 0.5


def test_graphs_are_tried_once_and_again_for_another_network() -> None:
    setup = prepare(experiment_of(ONNX, "model.dropout=0.2"))
    tried = offering(setup, LocalSettings())
    assert tried.graphs == OfferedGraphs(None, None, proximal=False)
    assert offering(tried, LocalSettings(proximal_mu=0.1)) is tried
    assert resized(tried, {}).graphs is None


def test_half_the_fleet_without_torch_learns_as_well_as_a_fleet_with_it(
    tmp_path: Path,
) -> None:
    settings = ["run.rounds=12", "run.cohort=8", "engine.workers=0"]
    simulate_federation(experiment_of(*settings), tmp_path / "torch")
    mixed = experiment_of(*settings, ONNX, "fleet.torch_free_share=0.5")
    simulate_federation(mixed, tmp_path / "mixed")
    expected, found = (accuracy_in(tmp_path / name) for name in ("torch", "mixed"))
    assert found > 0.85
    # 359 examples: a point is three and a half of them.
    assert found == pytest.approx(expected, abs=0.01)


def test_channels_weights_masks_and_resume_go_together_without_torch(
    tmp_path: Path,
) -> None:
    """Under secure aggregation, with the proximal term, stopped and gone on."""
    experiment = experiment_of(
        ONNX,
        "model.widths=[16]",
        "run.rounds=4",
        "run.cohort=4",
        "fleet.num_devices=6",
        "secagg=semi_honest",
        "secagg.min_cohort=3",
        "strategy=fedprox",
        "compression.sparsity=0.5",
        "compression.channel_sparsity=0.5",
        "data.max_examples=200",
        "engine.workers=0",
    )
    simulate_federation(experiment, tmp_path / "whole")
    arrays = load_file(tmp_path / "whole" / "last.safetensors")
    assert arrays["1.weight"].shape[0] < 16
    assert np.mean(arrays["1.weight"] == 0) >= 0.4
    assert accuracy_in(tmp_path / "whole") > 0.3


def _offered_once() -> Callable[[Setup, LocalSettings], Setup]:
    made: list[OfferedGraphs | None] = []

    def offered(setup: Setup, local: LocalSettings) -> Setup:
        if not made:
            made.append(offering(setup, local).graphs)
        return replace(setup, graphs=made[0])

    return offered


class Stop(LogObserver):
    def round_finished(self, record: RoundRecord) -> None:
        if record.round_index == 0:
            raise KeyboardInterrupt


def test_a_resumed_run_without_torch_ends_in_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDGE_SECAGG", "optional")
    monkeypatch.setenv("FEDGE_TRAIN_BACKEND", "onnx")
    # Making a graph is slow, and gives the same bytes each time (tests of fedge.train).
    monkeypatch.setattr("server.coordinator.offering", _offered_once())
    experiment = experiment_of(ONNX, "model=logistic", "run.rounds=2", "run.cohort=3")

    def run(folder: Path, observer: LogObserver) -> None:
        num = experiment.fleet.num_devices
        with LocalGrid(app, num_clients=num, workers=0) as grid:
            coordinate(grid, experiment, folder, observer)

    run(tmp_path / "whole", LogObserver())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", Stop())
    run(tmp_path / "parts", LogObserver())
    whole, parts = (
        (tmp_path / name / "last.safetensors").read_bytes()
        for name in ("whole", "parts")
    )
    assert whole == parts
