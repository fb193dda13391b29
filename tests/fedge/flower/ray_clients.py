"""Clients that actors of a RayGrid make by name; not a test."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedge.arrays import Float32
from fedge.flower import secure_mod
from fedge.flower.client_runner import Clients
from fedge.flower.records import array_of, read_array

SIZE, NUM_CLIENTS = 20_000, 12
app = ClientApp()
secure_app = ClientApp(mods=[secure_mod])


@app.train()
@secure_app.train()
def train(message: Message, context: Context) -> Message:
    """Move a model by the client's own noise."""
    (record,) = message.content.array_records.values()
    rng = np.random.default_rng([context.node_id, *message.metadata.group_id.encode()])
    model = read_array(record["w"]) + rng.normal(0.0, 0.1, SIZE)
    arrays = ArrayRecord({"w": array_of(model.astype(np.float32))})
    metrics = MetricRecord({"num-examples": context.node_id, "loss": float(model[0])})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.train("seldom")
def train_seldom(message: Message, context: Context) -> Message:
    """Train, but raise, or let the whole actor die once, where that is asked for."""
    place = place_of(context)
    if place == 3:
        raise RuntimeError("the battery is empty")
    time.sleep(0.02)
    if place == NUM_CLIENTS - 2:
        once(context, kill_actor)
    return train(message, context)


@app.query()
def tell(message: Message, context: Context) -> Message:
    """Tell who this is, and how often it was asked."""
    seen = context.state.get("seen") or MetricRecord({"times": 0})
    assert isinstance(seen, MetricRecord)
    times = seen["times"]
    assert isinstance(times, int)
    context.state["seen"] = MetricRecord({"times": times + 1})
    found = {"place": place_of(context), "times": times, "pid": os.getpid()}
    return Message(RecordDict({"m": MetricRecord(dict(found))}), reply_to=message)


@app.query("slowly")
def tell_slowly(message: Message, context: Context) -> Message:
    """Tell after a while."""
    time.sleep(0.2)
    return tell(message, context)


@app.query("fatal")
def tell_or_die(message: Message, context: Context) -> Message:
    """Tell; client 5 kills its process every time."""
    if place_of(context) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return tell(message, context)


@app.query("lethal")
def tell_or_kill(message: Message, context: Context) -> Message:
    """Tell; client 5 kills its actor, once."""
    time.sleep(0.02)
    if place_of(context) == 5:
        once(context, kill_actor)
    return tell(message, context)


@app.query("hopeless")
def kill_always(message: Message, context: Context) -> Message:
    """Kill the actor."""
    kill_actor()
    return tell(message, context)


@app.query("environment")
def tell_environment(message: Message, context: Context) -> Message:
    """Tell how many GPUs this process sees."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    found = MetricRecord({"gpus": len([one for one in devices.split(",") if one])})
    return Message(RecordDict({"m": found}), reply_to=message)


def place_of(context: Context) -> int:
    place = context.node_config["partition-id"]
    assert isinstance(place, int)
    return place


def once(context: Context, act: Callable[[], None]) -> None:
    mark = Path(str(context.node_config["folder"])) / "done"
    if not mark.exists():
        mark.touch()
        act()


def kill_actor() -> None:
    """Kill this worker's actor: its parent (the nursery)'s parent."""
    status = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="ascii")
    os.kill(int(status.rpartition(")")[2].split()[1]), signal.SIGKILL)
    time.sleep(60.0)  # until the nursery notices


def make(arguments: str) -> Clients:
    """Return clients that know a folder."""
    folder = json.loads(arguments)["folder"]
    return Clients(app, NUM_CLIENTS, node_config=lambda index: {"folder": folder})


def fail(arguments: str) -> Clients:
    """Fail as a broken installation does."""
    raise ModuleNotFoundError("No module named 'sklearn'")


def too_few(arguments: str) -> Clients:
    """Return fewer clients than are wanted."""
    return Clients(app, 1)


def start_model() -> Float32:
    return np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)


def model_content() -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({"w": array_of(start_model())})})
