"""The client: as in Flower's quickstart, with one mod."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.flower import secure_mod
from quickstart_app.task import load_share, make_model
from quickstart_app.task import train as train_model

app = ClientApp(mods=[secure_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model on local data."""
    model = make_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    place = int(context.node_config["partition-id"])
    images, labels = load_share(place, int(context.node_config["num-partitions"]))
    loss = train_model(model, images, labels)
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(labels)})
    content = RecordDict(
        {"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}
    )
    return Message(content, reply_to=message)
