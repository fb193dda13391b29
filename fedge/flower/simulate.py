"""Run any Flower app of the Message API on a LocalGrid, in this process."""

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import ServerApp

from fedge.flower.local_grid import LocalGrid, UserConfig


def simulate(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    num_clients: int,
    run_config: UserConfig | None = None,
) -> None:
    """Run `server_app` against `num_clients` virtual clients.

    Args:
        server_app: an app with a main function (`@app.main()`).
        client_app: the app every client runs.
        num_clients: virtual clients, >= 1.
        run_config: what both apps find in `context.run_config`.

    Raises:
        ConfigError: num_clients is out of range.
        Exception: whatever the server app raises. A client that raises becomes an
            error reply instead.
    """
    grid = LocalGrid(client_app, num_clients=num_clients, run_config=run_config)
    context = Context(
        run_id=grid.run.run_id,
        node_id=SUPERLINK_NODE_ID,
        node_config={},
        state=RecordDict(),
        run_config=dict(run_config or {}),
    )
    server_app(grid, context)
