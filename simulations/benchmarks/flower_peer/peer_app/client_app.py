"""The client: one epoch of plain SGD, as in Flower's quickstart with PyTorch."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from simulations.benchmarks.workload import LEARNING_RATE, client_batches, make_model

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model on local data."""
    model = make_model(str(context.run_config["model"]))
    arrays = message.content.array_records["arrays"]
    model.load_state_dict(arrays.to_torch_state_dict())
    loss, num_examples = train_model(model, int(context.node_config["partition-id"]))
    metrics = MetricRecord({"train_loss": loss, "num-examples": num_examples})
    content = RecordDict(
        {"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}
    )
    return Message(content=content, reply_to=message)


def train_model(model: nn.Module, client: int) -> tuple[float, int]:
    """Train for one epoch; return the mean loss and the number of examples."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()
    model.train()
    total, num_examples, batches = 0.0, 0, client_batches(client)
    for images, labels in batches:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
        num_examples += len(labels)
    return total / len(batches), num_examples
