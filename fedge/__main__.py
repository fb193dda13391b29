"""The `fedge` command, also as `python -m fedge`.

It only finds the subcommand; help is printed without loading anything heavy.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from fedge.commands import compression, export, model_file, secagg, simulation
from fedge.errors import FedgeError

_REFUSED = 2  # as argparse: the arguments, or the files they name, are wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 2 for wrong arguments or files."""
    parser = argparse.ArgumentParser(
        prog="fedge", description="Federated learning for edge devices."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    secagg.add_command(commands)
    simulation.add_command(commands)
    compression.add_command(commands)
    model_file.add_command(commands)
    export.add_command(commands)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except FedgeError as exc:
        print(f"fedge: {exc}", file=sys.stderr)
    except ModuleNotFoundError as exc:
        needs = "this command needs pip install 'fedge[device]'"
        print(f"fedge: no module {exc.name}; {needs}", file=sys.stderr)
    return _REFUSED


if __name__ == "__main__":
    sys.exit(main())
