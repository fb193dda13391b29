"""The server: as in Flower's quickstart, with one layer on the grid."""

import json
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedge.config import SecAggConfig
from fedge.flower import SecureSum
from quickstart_app.task import load_share, make_model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds; write down how good the model is."""
    config = context.run_config
    min_cohort = int(config["min-cohort"])
    settings = SecAggConfig(min_cohort=min_cohort, clip=4.0)
    secure = SecureSum(grid, settings, metrics=["train_loss"])
    result = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=min_cohort,
        min_available_nodes=min_cohort,
    ).start(
        secure,
        ArrayRecord(make_model().state_dict()),
        num_rounds=int(config["num-server-rounds"]),
    )
    model = make_model()
    model.load_state_dict(result.arrays.to_torch_state_dict())
    images, labels = load_share(0, 1)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    losses = [r["train_loss"] for r in result.train_metrics_clientapp.values()]
    record = {"accuracy": accuracy, "losses": losses}
    Path(str(config["result"])).write_text(json.dumps(record), encoding="utf-8")
