"""Both apps in one module; the server pushes messages and polls for the replies."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

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
from flwr.serverapp import Grid, ServerApp


@dataclass
class Apps:
    """What the pyproject.toml refers to."""

    server: ServerApp
    client: ClientApp


apps = Apps(ServerApp(), ClientApp())


@apps.client.query()
def draw(message: Message, context: Context) -> Message:
    """Throw darts with a seed of its own; each client gets a message of its own."""
    seed = message.content["task"]["seed"]
    rng = np.random.default_rng([seed, context.node_config["partition-id"]])
    darts = rng.random((context.run_config["draws"], 2))
    histogram = np.histogram(darts[:, 0], bins=8, range=(0, 1))[0]
    inside = int((np.square(darts).sum(axis=1) < 1).sum())
    content = RecordDict(
        {
            "m": MetricRecord(
                {"inside": inside, "place": context.node_config["partition-id"]}
            ),
            "a": ArrayRecord({"histogram": Array(histogram)}),
            "c": ConfigRecord({"label": context.run_config["label"], "raw": b"\x00"}),
        }
    )
    return Message(content, reply_to=message)


@apps.server.main()
def main(grid: Grid, context: Context) -> None:
    """Ask everybody, poll until all are in, ask the next time."""
    record: dict = {"inside": [], "run-config": dict(context.run_config)}
    record["run-config"].pop("result")
    total = np.zeros(8, np.int64)
    while len(nodes := list(grid.get_node_ids())) < context.run_config["nodes"]:
        time.sleep(0.1)
    for seed in (1, 2):
        task = RecordDict({"task": ConfigRecord({"seed": seed})})
        messages = [Message(task, node, "query", ttl=3600.0) for node in nodes]
        waiting, replies = set(grid.push_messages(messages)), []
        while waiting:
            arrived = list(grid.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies.extend(arrived)
            if waiting:
                time.sleep(0.1)
        replies.sort(key=lambda reply: reply.content["m"]["place"])
        record["inside"].append([reply.content["m"]["inside"] for reply in replies])
        record["label"] = replies[0].content["c"]["label"]
        total += sum(reply.content["a"]["histogram"].numpy() for reply in replies)
    Path("polling-was-here.txt").write_text("done", encoding="utf-8")
    path = Path(context.run_config["result"])
    path.write_text(json.dumps(record), encoding="utf-8")
    np.savez(path.with_suffix(".npz"), total=total)
