"""The ClientApp: which handler answers which message.

The same object runs in the simulator, in Flower's simulation runtime and on a device.
Handlers are imported when their message comes: Flower starts a process per message on
a device, and an update must not wait for PyTorch (or need it).
"""

from collections.abc import Sequence

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from clients.device import Device
from fedge.flower.batching import Computed, together
from fedge.flower.secure_client import secure_mod
from fedge.flower.secure_messages import Step, step_of


def protect(
    message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """Train under secure aggregation only, unless this device's owner allows less."""
    if step_of(message.content) is None and Device.of(context).may_train_openly:
        return call_next(message, context)
    return secure_mod(message, context, call_next)


app = ClientApp(mods=[protect])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that was sent on this device's own data."""
    from clients import training

    return training.train(message, context)


@app.train("calibrate")
def calibrate(message: Message, context: Context) -> Message:
    """Say what ranges a network's activations have on this device's own data."""
    from clients import calibration

    return calibration.calibrate(message, context)


@together(app)
def train_together(pairs: Sequence[tuple[Message, Context]]) -> Computed:
    """Train several simulated clients at once, if all of them would train."""
    from clients import training

    step = step_of(pairs[0][0].content)
    if step is Step.fit:
        return training.train_together(pairs, masked=True)
    if step is None and all(Device.of(c).may_train_openly for _, c in pairs):
        return training.train_together(pairs, masked=False)
    return {}


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the model that was sent on this device's own data."""
    from clients import training

    return training.evaluate_model(message, context)


@app.evaluate("release")
def evaluate_release(message: Message, context: Context) -> Message:
    """Run the installed release on this device's own data."""
    from clients import release

    return release.evaluate_installed(message, context)


@app.query("release")
def install_release(message: Message, context: Context) -> Message:
    """Verify, test and install a pushed release, or keep the old one."""
    from clients import release

    return release.install_pushed(message, context)


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Say which device this is and what it runs."""
    from clients import release

    return release.describe(message, context)
