"""The server: Flower's FedAvg, which also notes how long each round takes."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from simulations.benchmarks.workload import (
    COHORT_SIZE,
    EXAMPLES_PER_CLIENT,
    NUM_CLIENTS,
    make_model,
)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for some rounds; write down the seconds of each."""
    config = context.run_config
    strategy = TimedFedAvg(
        fraction_train=COHORT_SIZE / NUM_CLIENTS,
        fraction_evaluate=0.0,
        min_available_nodes=NUM_CLIENTS,
    )
    strategy.start(
        grid,
        ArrayRecord(make_model(str(config["model"])).state_dict()),
        num_rounds=int(config["num-server-rounds"]),
    )
    if config["timings"]:
        timings = json.dumps({"seconds": strategy.seconds})
        Path(str(config["timings"])).write_text(timings, encoding="utf-8")


class TimedFedAvg(FedAvg):
    """FedAvg with a clock; it runs from a round's first act to its new model.

    Attributes:
        seconds: of each round so far.
    """

    def __init__(self, **settings: float) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # some are integers
        self.seconds: list[float] = []
        self._started = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Start the clock, then do as FedAvg does."""
        self._started = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Do as FedAvg does and stop the clock.

        Raises:
            RuntimeError: a client of the cohort did not train.
        """
        answered = list(replies)
        _check_all_trained(answered)
        result = super().aggregate_train(server_round, answered)
        self.seconds.append(time.perf_counter() - self._started)
        return result


def _check_all_trained(replies: list[Message]) -> None:
    # By examples, because a grid may give one reply for several clients.
    trained = [reply for reply in replies if not reply.has_error()]
    records = [reply.content.metric_records["metrics"] for reply in trained]
    num_examples = sum(float(str(record["num-examples"])) for record in records)
    if num_examples != COHORT_SIZE * EXAMPLES_PER_CLIENT:
        raise RuntimeError(
            f"{len(replies) - len(trained)} of {len(replies)} replies are errors, the "
            f"others say that {num_examples:.0f} examples were used"
        )
