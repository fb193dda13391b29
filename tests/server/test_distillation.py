from collections.abc import Iterator
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fedge.train.evaluate import evaluate
from server.distillation import distilled
from server.journal import Journal, RoundRecord
from server.model_state import ModelState, initial_state, pruned
from server.narrow import narrow
from server.settings import compose_experiment
from server.setup import Setup, prepare
from server.state_codec import to_bytes
from simulations.federation import simulate_federation

RECORD = RoundRecord(
    round_index=0, attempts=1, asked=4, answered=4, failed=0, examples=40.0,
    train_loss=1.0, loss=1.0, score=0.5, device_score=nan, learning_rate=0.1,
    sparsity=0.0, bytes_down=1, bytes_up=1, seconds=1.0,
)  # fmt: skip
SETTINGS = [
    "model=mlp", "model.widths=[32]", "secagg=off", "run.rounds=4",
    "compression=small", "compression.channel_multiple=1", "compression.sparsity=0.5",
    "compression.channel_begin=1", "compression.channel_end=1",
    "compression.distill_epochs=30",
]  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path / "journal.sqlite", "{}")
    yield journal
    journal.close()


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setup, ModelState]:
    """A trained network that still has all its channels."""
    folder = tmp_path_factory.mktemp("dense")
    plain = [*SETTINGS[:4], "release=none", "compression=none"]
    simulate_federation(compose_experiment(plain), folder)
    setup = prepare(compose_experiment(SETTINGS))

    params = setup.spec.flatten(load_file(folder / "last.safetensors"))
    return setup, initial_state(setup.strategy, params, setup.spec)


def test_the_pruned_model_learns_from_the_best_one(
    dense: tuple[Setup, ModelState], journal: Journal
) -> None:
    setup, best = dense
    journal.begin(to_bytes(best))
    journal.commit(RECORD, to_bytes(best), best=to_bytes(best))
    small, state = narrow(setup, best, round_index=4)
    state = pruned(state, small.spec, 0.5, small.experiment.compression)
    assert small.spec.size < 0.5 * setup.spec.size

    after = distilled(small, state, journal)

    losses = [
        evaluate(small.model, params, small.data.test, small.data.info).loss
        for params in (state.params, after)
    ]
    assert losses[1] < 0.8 * losses[0]
    assert state.mask is not None
    assert not after[~state.mask].any()
    assert distilled(small, state, journal).tobytes() == after.tobytes()


def test_without_a_best_model_or_without_epochs_nothing_changes(
    dense: tuple[Setup, ModelState], journal: Journal
) -> None:
    setup, state = dense
    journal.begin(to_bytes(state))
    assert distilled(setup, state, journal).tobytes() == state.params.tobytes()
    journal.commit(RECORD, to_bytes(state), best=to_bytes(state))
    compression = replace(setup.experiment.compression, distill_epochs=0)
    off = replace(setup, experiment=replace(setup.experiment, compression=compression))
    assert distilled(off, state, journal).tobytes() == state.params.tobytes()
