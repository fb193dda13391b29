"""All contestants of the engine benchmark end a round with the same model.

This is what makes their times comparable. Sums of floats are taken in different orders,
so models differ by rounding: 1e-6 is eight units in the last place of a weight of 1.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MessageType, RecordDict

from fedge.arrays import Float32
from fedge.config import TrainConfig
from fedge.data.dataset import Examples
from fedge.flower import LocalGrid, simulate
from fedge.models.vector import params_of, spec_of
from fedge.strategy import LocalSettings
from fedge.train.trainer import train_locally
from simulations.benchmarks import workload
from simulations.benchmarks.bare_loop import bare_loop
from simulations.benchmarks.flower_peer.peer_app.client_app import app as client_app
from simulations.benchmarks.flower_peer.peer_app.server_app import TimedFedAvg
from simulations.benchmarks.flower_peer.peer_app.server_app import app as server_app

ROUNDING = 1e-6
CONFIG = TrainConfig(
    learning_rate=workload.LEARNING_RATE,
    momentum=0.0,
    epochs=1,
    batch_size=workload.BATCH_SIZE,
)


@pytest.fixture(scope="module")
def expected() -> Float32:
    """The small model after round 0 in the bare loop in one process."""
    return bare("small", num_processes=1)


def bare(
    model: str, *, num_processes: int, channels_last: bool = False, num_rounds: int = 1
) -> Float32:
    with bare_loop(
        model, num_processes=num_processes, channels_last=channels_last
    ) as one_round:
        for round_index in range(num_rounds):
            one_round(round_index)
        vector: Float32 = one_round.params.numpy().copy()
    return vector


def test_a_round_changes_the_model(expected: Float32) -> None:
    model = workload.make_model("small")
    before = params_of(model, spec_of(model))
    assert np.abs(expected - before).max() > 1000 * ROUNDING


@pytest.mark.parametrize("num_processes", [2, 3])
def test_more_processes_give_the_same_model(
    expected: Float32, num_processes: int
) -> None:
    found = bare("small", num_processes=num_processes)
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_the_next_round_starts_from_the_average_in_all_processes() -> None:
    alone = bare("small", num_processes=1, num_rounds=3)
    together = bare("small", num_processes=2, num_rounds=3)
    np.testing.assert_allclose(together, alone, atol=3 * ROUNDING)


def test_the_layout_in_memory_does_not_change_the_model() -> None:
    plain = bare("cnn", num_processes=2)
    channels_last = bare("cnn", num_processes=2, channels_last=True)
    np.testing.assert_allclose(channels_last, plain, atol=ROUNDING)


def test_fedges_trainer_gives_the_same_model(expected: Float32) -> None:
    model, info = workload.make_model("small"), workload.load(None).info
    params, total = params_of(model, spec_of(model)), np.zeros_like(expected)
    for client in workload.draw_cohort(0):
        update = train_locally(
            model,
            params,
            as_fedge_shuffles(client),
            info,
            CONFIG,
            local=LocalSettings(),
            learning_rate=CONFIG.learning_rate,
            mask=None,
            rng=np.random.default_rng(client),
        )
        total += update.num_examples * update.delta
    num_examples = workload.COHORT_SIZE * workload.EXAMPLES_PER_CLIENT
    np.testing.assert_allclose(params + total / num_examples, expected, atol=ROUNDING)


def as_fedge_shuffles(client: int) -> Examples:
    """Return a client's examples so that fedge's shuffling puts them in order.

    Its trainer first draws a seed for dropout, then the order of the examples.
    """
    rng = np.random.default_rng(client)
    rng.integers(2**63)
    order = rng.permutation(workload.EXAMPLES_PER_CLIENT)
    pixels, labels = workload.examples()
    own = client * workload.EXAMPLES_PER_CLIENT + np.argsort(order)
    return Examples(pixels[own], labels[own])


def test_flowers_app_gives_the_same_model(expected: Float32) -> None:
    config = {"model": "small"}
    grid = LocalGrid(client_app, num_clients=workload.NUM_CLIENTS, run_config=config)
    nodes = list(grid.get_node_ids())
    arrays = ArrayRecord(workload.make_model("small").state_dict())
    content = RecordDict({"arrays": arrays})
    replies = grid.send_and_receive(
        Message(content, nodes[client], MessageType.TRAIN)
        for client in workload.draw_cohort(0)
    )
    strategy = TimedFedAvg(fraction_evaluate=0.0)
    result, _ = strategy.aggregate_train(1, replies)
    assert result is not None
    found = torch.cat([v.flatten() for v in result.to_torch_state_dict().values()])
    np.testing.assert_allclose(found.numpy(), expected, atol=ROUNDING)


def test_flowers_app_stops_when_a_client_did_not_train() -> None:
    strategy = TimedFedAvg(fraction_evaluate=0.0)
    with pytest.raises(RuntimeError, match="0 examples were used"):
        strategy.aggregate_train(1, [])


def test_flowers_app_runs_its_rounds_and_writes_their_seconds(tmp_path: Path) -> None:
    timings = tmp_path / "timings.json"
    simulate(
        server_app,
        client_app,
        num_clients=workload.NUM_CLIENTS,
        run_config={
            "model": "small",
            "num-server-rounds": 2,
            "timings": str(timings),
        },
    )
    seconds = json.loads(timings.read_text("utf-8"))["seconds"]
    assert len(seconds) == 2
    assert min(seconds) > 0.0
