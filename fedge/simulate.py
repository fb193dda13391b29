"""`python -m fedge.simulate PATH`: the same as `fedge simulate PATH`."""

import sys
from collections.abc import Sequence

from fedge.__main__ import main as fedge


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return fedge(["simulate", *arguments])


if __name__ == "__main__":
    sys.exit(main())
