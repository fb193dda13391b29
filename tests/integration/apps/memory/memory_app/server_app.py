"""A server that picks clients by their partition, and survives one that breaks."""

import json
import time
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
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train some clients in each round; write down what came of it."""
    while len(nodes := list(grid.get_node_ids())) < context.run_config["nodes"]:
        time.sleep(0.1)
    asked = [Message(RecordDict(), node, "query.who") for node in nodes]
    node_of = {
        reply.content["who"]["partition-id"]: reply.metadata.src_node_id
        for reply in grid.send_and_receive(asked)
    }
    places, model, history = sorted(node_of), np.zeros(3), []
    for number in range(1, context.run_config["rounds"] + 1):
        cohort = [place for place in places if (place + number) % 3]
        config = ConfigRecord({"broken": cohort[1] if number == 2 else -1})
        content = RecordDict(
            {"arrays": ArrayRecord({"w": Array(model)}), "config": config}
        )
        replies = list(
            grid.send_and_receive(
                Message(content, node_of[p], "train.momentum", group_id=str(number))
                for p in cohort
            )
        )
        good = [reply for reply in replies if not reply.has_error()]
        good.sort(key=lambda reply: reply.content["m"]["place"])
        model = np.mean([reply.content["a"]["w"].numpy() for reply in good], axis=0)
        errors = [r for r in replies if r.has_error()]
        history.append(
            {
                "seen": [reply.content["m"]["seen"] for reply in good],
                "errors": [
                    [e.error.code, "is broken" in e.error.reason] for e in errors
                ],
                "from": [e.metadata.src_node_id == node_of[cohort[1]] for e in errors],
                "groups": sorted({r.metadata.group_id for r in replies}),
            }
        )
    context.state["history"] = MetricRecord({"rounds": len(history)})
    path = Path(context.run_config["result"])
    path.write_text(json.dumps(history), encoding="utf-8")
    np.savez(path.with_suffix(".npz"), w=model)
