"""A device's process in which PyTorch and onnx cannot be imported.

    python torch_free_process.py FOLDER

Answers the messages `train` and `evaluate` of the folder, as the simulated network
would deliver them, and prints what it answered and which modules it has.
"""

import json
import sys
from pathlib import Path

from simulations.benchmarks.torch_free_client import Refuse, read_message

if __name__ == "__main__":
    sys.meta_path.insert(0, Refuse())
    from flwr.app import Message

    from clients.app import app
    from fedge.flower import LocalGrid

    folder = Path(sys.argv[1])
    answers: dict[str, dict[str, object]] = {}
    with LocalGrid(
        app, num_clients=4, workers=0, node_config=lambda _: {"secagg": "optional"}
    ) as grid:
        node = min(grid.get_node_ids())
        for name in ("train", "evaluate"):
            content = read_message(folder, name)
            (reply,) = grid.send_and_receive([Message(content, node, name)])
            if reply.has_error():
                answers[name] = {"error": reply.error.reason}
                continue
            answers[name] = dict(reply.content["metrics"].items())
            for record in reply.content.array_records.values():
                answers[name]["delta"] = record["delta"].numpy().tolist()
    print(json.dumps({"answers": answers, "modules": sorted(sys.modules)}))
