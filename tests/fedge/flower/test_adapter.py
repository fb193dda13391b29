import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from fedge.aggregation import UpdateMatrix
from fedge.errors import ConfigError, RoundAbortedError
from fedge.flower.adapter import FlowerStrategy
from fedge.strategy import Needs

SIZE = 12
START = np.linspace(-1, 1, SIZE).astype(np.float32)


def matrix(num_clients: int = 9, seed: int = 0) -> UpdateMatrix:
    rng = np.random.default_rng(seed)
    return UpdateMatrix(
        deltas=rng.normal(0, 0.1, (num_clients, SIZE)).astype(np.float32),
        weights=np.full(num_clients, 10.0),
        losses=rng.uniform(0.5, 1.5, num_clients),
    )


@pytest.mark.parametrize(
    ("strategy_class", "arguments"),
    [
        (flower.FedMedian, {}),
        (flower.FedTrimmedAvg, {"beta": 0.2}),
        (flower.Krum, {"num_malicious_nodes": 1}),
        (flower.MultiKrum, {"num_malicious_nodes": 1, "num_nodes_to_select": 3}),
        (flower.Bulyan, {"num_malicious_nodes": 1}),
        (flower.QFedAvg, {"client_learning_rate": 0.1, "q": 0.2}),
    ],
)
def test_strategies_that_see_each_update_run(
    strategy_class: type[flower.Strategy], arguments: dict[str, float]
) -> None:
    strategy = FlowerStrategy(strategy_class, arguments)
    assert strategy.needs is Needs.UPDATES
    state = strategy.apply(strategy.init(START), matrix())
    assert state.rounds_done == 1
    assert np.isfinite(state.params).all()
    assert not (state.params == START).all()


def test_the_median_is_the_median() -> None:
    strategy = FlowerStrategy(flower.FedMedian, {})
    updates = matrix(5)
    state = strategy.apply(strategy.init(START), updates)
    expected = np.median(START + updates.deltas, axis=0)
    np.testing.assert_allclose(state.params, expected, rtol=1e-6)


def test_a_strategy_continues_from_its_state_alone() -> None:
    first = FlowerStrategy(flower.FedAdam, {"eta": 0.1})
    state = first.apply(first.init(START), matrix(seed=1))
    again = FlowerStrategy(flower.FedAdam, {"eta": 0.1})
    there, here = again.apply(state, matrix(seed=2)), first.apply(state, matrix(seed=2))
    assert there.params.tobytes() == here.params.tobytes()
    assert "m_t" in state.memory


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'betta'"):
        FlowerStrategy(flower.FedTrimmedAvg, {"betta": 0.1})


def test_too_few_replies_abort_the_round() -> None:
    strategy = FlowerStrategy(flower.Bulyan, {"num_malicious_nodes": 2})
    with pytest.raises(RoundAbortedError, match="made no model of 3 replies"):
        strategy.apply(strategy.init(START), matrix(3))


class Personal(flower.FedAvg):
    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for index, message in enumerate(messages):
            message.content = message.content.copy()
            message.content["config"] = ConfigRecord({"client": index})
        return messages


def test_a_strategy_with_personal_instructions_is_refused() -> None:
    strategy = FlowerStrategy(Personal, {})
    with pytest.raises(ConfigError, match="configures clients differently"):
        strategy.local(strategy.init(START))
