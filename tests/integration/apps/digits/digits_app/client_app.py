"""The client: as in Flower's PyTorch quickstart, with mods and a lifespan."""

import logging
from collections.abc import Iterator

from digits_app.task import Net, load_data
from digits_app.task import test as test_fn
from digits_app.task import train as train_fn
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import arrays_size_mod, fixedclipping_mod, message_size_mod

app = ClientApp(mods=[message_size_mod])


@app.lifespan()
def lifespan(context: Context) -> Iterator[None]:
    """Say when a client begins and ends."""
    print("client", context.node_config["partition-id"], "begins")
    yield
    print("client", context.node_config["partition-id"], "ends")


@app.train(mods=[arrays_size_mod, fixedclipping_mod])
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    net = Net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    place = context.node_config["partition-id"]
    data = load_data(place, context.node_config["num-partitions"])
    loss = train_fn(
        net,
        data,
        lr=context.run_config["train.lr"],
        steps=context.run_config["train.steps"],
    )
    logging.getLogger(__name__).info("trained %d", place)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(data[1])})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    net = Net()
    net.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    place = context.node_config["partition-id"]
    data = load_data(place, context.node_config["num-partitions"])
    loss, accuracy = test_fn(net, data)
    metrics = MetricRecord(
        {"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(data[1])}
    )
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
