"""The wheel holds the library and nothing else, and works without the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# The repository may be on the path (an editable install): only the wheel counts.
IMPORT_ALL = """
import importlib, pkgutil, sys
wheel, repository = sys.argv[1:]
sys.path[:] = [wheel, *(p for p in sys.path if p != repository)]
import fedge
names = ["fedge", *(m.name for m in pkgutil.walk_packages(fedge.__path__, "fedge."))]
for name in names:
    module = importlib.import_module(name)
    assert module.__file__.startswith(wheel), module.__file__
print(len(names))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir",
         str(folder), str(REPOSITORY)],
        check=True,
        capture_output=True,
        cwd=folder,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


def test_the_only_top_level_entries_are_the_library_and_its_metadata(
    wheel: Path,
) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    version = wheel.name.split("-")[1]
    assert {name.split("/")[0] for name in names} == {
        "fedge",
        f"fedge-{version}.dist-info",
    }


def test_every_source_file_is_in_it_and_the_mark_of_types_too(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("fedge/")}
    sources = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "fedge").rglob("*.py")
    }
    assert names == sources | {"fedge/py.typed"}


def test_every_module_imports_without_the_repository(
    wheel: Path, tmp_path: Path
) -> None:
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(unpacked)
    empty.mkdir()
    ended = subprocess.run(
        [sys.executable, "-P", "-c", IMPORT_ALL, str(unpacked), str(REPOSITORY)],
        cwd=empty,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    num_sources = len(list((REPOSITORY / "fedge").rglob("*.py")))
    assert int(ended.stdout) == num_sources
    assert list(empty.iterdir()) == []
