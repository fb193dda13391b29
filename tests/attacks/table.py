"""The table of attacks, made from the tests that try them.

python -m tests.attacks.table > docs/attacks.md
"""

import ast
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
HEAD = """# Attacks that the tests try

Made by `python -m tests.attacks.table` from the tests in `tests/attacks`; the rows are
those of the list of known attacks on secure aggregation.

| row | attack | what happens | test |
|---|---|---|---|
"""


def _functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for file in sorted(FOLDER.glob("test_*_attacks.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield file, node


def _row(file: Path, test: ast.FunctionDef) -> tuple[str, str, str, str]:
    text = " ".join((ast.get_docstring(test) or "").split())
    attack, _, rest = text.partition(" Row: ")
    row, _, closed = rest.partition(" Closed by: ")
    if not (attack and row and closed):
        raise ValueError(f"{test.name}: needs an attack, `Row:` and `Closed by:`")
    name = test.name.removeprefix("test_").replace("_", " ")
    return row, attack, closed, f"{name} (`{file.name}`)"


def _place(row: tuple[str, ...]) -> tuple[int, str]:
    number = row[0].removeprefix("A")
    return (int(number) if number.isdigit() else 99, row[0])


def table() -> str:
    """Return docs/attacks.md."""
    rows = sorted((_row(file, test) for file, test in _functions()), key=_place)
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
