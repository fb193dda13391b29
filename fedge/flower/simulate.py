"""Run any Flower app on a LocalGrid: the server's part in this process.

What an app may notice, compared with Flower's own simulation: all nodes are there from
the beginning, with ids 2, 3, ... in the order of their partitions; replies come in the
order of the messages; pushed messages run when they are pulled, all of them, and never
if nobody pulls; a message to an unknown node is answered with an error; the server app
runs in the main thread and from its own folder, not from an installed copy.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid, ServerApp

from fedge.flower.client_runner import no_node_config
from fedge.flower.local_grid import LocalGrid, UserConfig
from fedge.flower.shared import SharedGrid


def simulate(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    num_clients: int,
    run_config: UserConfig | None = None,
    workers: int | None = None,
    threads: int = 1,
    client_seconds: float = 0.0,
    memory_bytes: int = 0,
    batching: bool = True,
    node_config: Callable[[int], UserConfig] | None = None,
) -> Context:
    """Run `server_app` against `num_clients` virtual clients; return its context.

    Guarantee: workers start before the server app runs, and none is left afterwards,
    however it ends.

    Args:
        server_app: an app with a main function (`@app.main()`), or a legacy one with a
            `server_fn`.
        client_app: the app every client runs.
        num_clients: virtual clients, >= 1.
        run_config: what both apps find in `context.run_config`.
        workers: processes that run clients; None takes one per core, 0 runs them here.
        threads: of one client's computation, in a worker.
        client_seconds: a client that computes for longer is ended; 0 for no limit.
        memory_bytes: private memory a worker may use; 0 for no limit.
        batching: compute clients together if the app says how.
        node_config: further entries of a client's node config, by index.

    Raises:
        ConfigError: a number is out of range.
        Exception: whatever the server app raises. A client that raises becomes an
            error reply instead.
    """
    grid = LocalGrid(
        client_app,
        num_clients=num_clients,
        workers=workers,
        threads=threads,
        client_seconds=client_seconds,
        memory_bytes=memory_bytes,
        batching=batching,
        run_config=run_config,
        node_config=node_config or no_node_config,
    )
    with grid:
        return run_server_app(server_app, grid, run_config or {})


def run_server_app(
    server_app: ServerApp, grid: Grid, run_config: UserConfig
) -> Context:
    """Run a server app on a grid; return the context that it leaves.

    Args:
        server_app: the app.
        grid: started; the app's threads may share it.
        run_config: what the app finds in `context.run_config`.

    Raises:
        Exception: whatever the app raises.
    """
    context = Context(
        run_id=grid.run.run_id,
        node_id=SUPERLINK_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config),
    )
    with _settled_heap():
        server_app(SharedGrid(grid), context)
    return context


@contextmanager
def _settled_heap() -> Iterator[None]:
    """Let the garbage collector leave alone what is there now, for a while.

    Flower's records are cycles of references, so it has to run often; and each time it
    would look at all objects of all libraries, which took a tenth of a run.
    """
    if gc.get_freeze_count():  # somebody else's doing, and theirs to undo
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
