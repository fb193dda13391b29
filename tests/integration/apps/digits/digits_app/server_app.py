"""The server: FedAvg with clipped updates, as in Flower's documentation."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from digits_app.task import Net, load_data
from digits_app.task import test as test_fn
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    FedAvg,
)

app = ServerApp()


@app.lifespan()
def lifespan(context: Context) -> Iterator[None]:
    """Say when the server begins and ends."""
    print("server begins")
    yield
    print("server ends")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds; write down what came of it."""
    torch.manual_seed(0)
    arrays = ArrayRecord(Net().state_dict())
    strategy = DifferentialPrivacyClientSideFixedClipping(
        FedAvg(fraction_evaluate=context.run_config["fraction-evaluate"]),
        noise_multiplier=0.0,
        clipping_norm=2.0,
        num_sampled_clients=len(list(grid.get_node_ids())),
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=context.run_config["num-server-rounds"],
        evaluate_fn=global_evaluate,
    )
    path = Path(context.run_config["result"])
    record = {
        "train": list(map(dict, result.train_metrics_clientapp.values())),
        "evaluate": list(map(dict, result.evaluate_metrics_clientapp.values())),
        "global": list(map(dict, result.evaluate_metrics_serverapp.values())),
    }
    path.write_text(json.dumps(record), encoding="utf-8")
    final = {k: array.numpy() for k, array in result.arrays.items()}
    np.savez(path.with_suffix(".npz"), **final)


def global_evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Evaluate the global model on all data."""
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    loss, accuracy = test_fn(net, load_data(0, 1))
    return MetricRecord({"accuracy": accuracy, "loss": loss})
