from functools import partial
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]  # ships no types
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import (
    LocalDpMod,
    arrays_size_mod,
    fixedclipping_mod,
    message_size_mod,
)
from flwr.clientapp.typing import Mod
from flwr.common import (
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

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


def test_workers_run_before_the_server_app_does_and_end_after_it() -> None:
    server_app, below, left = ServerApp(), [], []

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        below.extend(psutil.Process().children(recursive=True))
        context.state["left"] = ConfigRecord({"by": "the server app"})
        raise_if_asked(context)

    def raise_if_asked(context: Context) -> None:
        if context.run_config["raise"]:
            raise LookupError("out of ideas")

    start = partial(simulate, server_app, client_app, num_clients=4, workers=2)
    context = start(run_config={"raise": False})
    assert context.state["left"] == {"by": "the server app"}
    with pytest.raises(LookupError):
        start(run_config={"raise": True})
    assert len(below) == 2 * (2 + 1), "two workers and what they are made from"
    psutil.wait_procs(below, timeout=10.0)
    left = [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert left == []


def test_clients_find_their_further_config() -> None:
    app, server_app = ClientApp(), ServerApp()
    names: list[object] = []

    @app.query("name")
    def name(message: Message, context: Context) -> Message:
        name = ConfigRecord({"name": context.node_config["name"]})
        return Message(RecordDict({"c": name}), reply_to=message)

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        asked = [Message(RecordDict(), n, "query.name") for n in grid.get_node_ids()]
        names.extend(r.content["c"]["name"] for r in grid.send_and_receive(asked))

    simulate(
        server_app, app, num_clients=2, node_config=lambda i: {"name": f"client {i}"}
    )
    assert names == ["client 0", "client 1"]


def nudging_app(*mods: Mod) -> ClientApp:
    app = ClientApp()

    @app.train(mods=list(mods))
    def train(message: Message, context: Context) -> Message:
        model = read_array(message.content.array_records["arrays"]["w"])
        arrays = ArrayRecord({"w": array_of(model + np.float32(1.0))})
        metrics = MetricRecord({"num-examples": 1, "loss": 0.5})
        return Message(
            RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message
        )

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 1, "loss": 0.25})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


@pytest.mark.parametrize(
    ("strategy", "mods", "expected"),
    [
        (flower.FedAvg(), [arrays_size_mod, message_size_mod], 2.0),
        (flower.FedMedian(), [], 2.0),
        (flower.Krum(num_malicious_nodes=1), [], 2.0),
        (flower.FedAvgM(server_momentum=0.0), [], 2.0),
        (flower.FedProx(proximal_mu=0.1), [], 2.0),
        (
            flower.DifferentialPrivacyClientSideFixedClipping(
                flower.FedAvg(),
                noise_multiplier=0.0,
                clipping_norm=0.5,
                num_sampled_clients=6,
            ),
            [fixedclipping_mod],
            2 * 0.25,  # four coordinates of a vector of length 0.5, twice
        ),
        (
            flower.DifferentialPrivacyServerSideFixedClipping(
                flower.FedAvg(),
                noise_multiplier=0.0,
                clipping_norm=0.5,
                num_sampled_clients=6,
            ),
            [],
            2 * 0.25,
        ),
    ],
)
def test_flowers_strategies_and_mods_work(
    strategy: flower.Strategy, mods: list[Mod], expected: float
) -> None:
    server_app, results = ServerApp(), []

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"w": array_of(np.zeros(4, np.float32))})
        results.append(
            strategy.start(
                grid,
                start,
                num_rounds=2,
                evaluate_fn=lambda n, _: MetricRecord({"n": n}),
            )
        )

    simulate(server_app, nudging_app(*mods), num_clients=6, workers=2)
    final = read_array(results[0].arrays["w"])
    np.testing.assert_allclose(final, np.full(4, expected), rtol=1e-6)
    assert results[0].evaluate_metrics_clientapp[2]["loss"] == pytest.approx(0.25)
    assert results[0].evaluate_metrics_serverapp[2] == {"n": 2}


def test_local_differential_privacy_adds_its_noise() -> None:
    server_app, results = ServerApp(), []
    mod = LocalDpMod(clipping_norm=1.0, sensitivity=1.0, epsilon=10.0, delta=1e-5)

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        start = ArrayRecord({"w": array_of(np.zeros(4, np.float32))})
        results.append(flower.FedAvg().start(grid, start, num_rounds=1))

    simulate(server_app, nudging_app(mod), num_clients=3, workers=2)
    final = read_array(results[0].arrays["w"])
    assert len(set(final.tolist())) == 4, "every coordinate has noise of its own"


def legacy_client(context: Context) -> Client:
    class Learner(NumPyClient):
        def fit(
            self, parameters: list[NDArray[Any]], config: dict[str, Any]
        ) -> tuple[list[NDArray[Any]], int, dict[str, Any]]:
            place = context.node_config["partition-id"]
            if place == context.run_config["broken"]:
                raise RuntimeError("broken")
            return [parameters[0] + place], 10, {}

        def evaluate(
            self, parameters: list[NDArray[Any]], config: dict[str, Any]
        ) -> tuple[float, int, dict[str, Any]]:
            return float(parameters[0][0]), 10, {}

    return Learner().to_client()


def test_legacy_apps_run_on_all_workers() -> None:
    def server_fn(context: Context) -> ServerAppComponents:
        start = ndarrays_to_parameters([np.zeros(2)])
        return ServerAppComponents(
            strategy=Remembering(initial_parameters=start),
            config=ServerConfig(num_rounds=2),
        )

    found: list[list[float]] = []

    class Remembering(LegacyFedAvg):
        def evaluate(
            self, server_round: int, parameters: Parameters
        ) -> tuple[float, dict[str, Scalar]] | None:
            found.append(parameters_to_ndarrays(parameters)[0].tolist())
            return None

    simulate(
        ServerApp(server_fn=server_fn),
        ClientApp(client_fn=legacy_client),
        num_clients=8,
        workers=2,
        run_config={"broken": 7},
    )
    # Places 0 to 6 answered; their mean is 3.
    np.testing.assert_allclose(found, [[0.0, 0.0], [3.0, 3.0], [6.0, 6.0]], rtol=1e-12)
