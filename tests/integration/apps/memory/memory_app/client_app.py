"""A client that keeps a counter and its momentum between rounds."""

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("who")
def who(message: Message, context: Context) -> Message:
    """Tell the partition id."""
    place = context.node_config["partition-id"]
    content = RecordDict({"who": ConfigRecord({"partition-id": place})})
    return Message(content, reply_to=message)


@app.train("momentum")
def train(message: Message, context: Context) -> Message:
    """Take one step of least squares with momentum; remember both."""
    place = context.node_config["partition-id"]
    seen = context.state.get("seen", MetricRecord({"rounds": 0}))["rounds"]
    if place == message.content["config"]["broken"]:
        raise RuntimeError(f"client {place} is broken")
    model = message.content["arrays"]["w"].numpy()
    data = np.random.default_rng(place)
    inputs = data.normal(size=(20, len(model)))
    targets = inputs @ np.arange(len(model)) + data.normal(size=20)
    gradient = inputs.T @ (inputs @ model - targets) / len(targets)
    velocity = np.zeros_like(model)
    if "momentum" in context.state:
        velocity = context.state["momentum"]["v"].numpy()
    velocity = context.run_config["momentum"] * velocity + gradient
    step = context.run_config["learning-rate"] / (1 + seen)
    context.state["momentum"] = ArrayRecord({"v": Array(velocity)})
    context.state["seen"] = MetricRecord({"rounds": seen + 1})
    context.state["log"] = ConfigRecord(
        {"rounds": [*context.state.get("log", {"rounds": []})["rounds"], seen]}
    )
    metrics = MetricRecord({"place": place, "seen": seen})
    arrays = ArrayRecord({"w": Array(model - step * velocity)})
    return Message(RecordDict({"a": arrays, "m": metrics}), reply_to=message)
