import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedge.errors import ConfigError
from fedge.flower import simulate
from fedge.flower.records import array_of, read_array

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    step = context.run_config["step"]
    assert isinstance(step, float)
    model = read_array(message.content.array_records["arrays"]["w"])
    arrays = ArrayRecord({"w": array_of(model + np.float32(step))})
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def test_both_apps_run_with_the_run_config() -> None:
    server_app = ServerApp()
    results = []

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        assert context.run_config == {"step": 0.5}
        start = ArrayRecord({"w": array_of(np.zeros(3, np.float32))})
        strategy = FedAvg(fraction_evaluate=0.0)
        result = strategy.start(grid, start, num_rounds=2)
        results.append(read_array(result.arrays["w"]).tolist())

    simulate(server_app, client_app, num_clients=3, run_config={"step": 0.5})
    assert results == [[1.0, 1.0, 1.0]]


def test_what_the_server_raises_comes_through() -> None:
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        raise LookupError("out of ideas")

    with pytest.raises(LookupError, match="out of ideas"):
        simulate(server_app, client_app, num_clients=1)


def test_there_must_be_a_client() -> None:
    with pytest.raises(ConfigError, match="num_clients: 0 must be at least 1"):
        simulate(ServerApp(), client_app, num_clients=0)
