import sys
import textwrap
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedge.errors import ConfigError
from fedge.flower.app_folder import load_apps, override, read_app_folder

PROJECT = """
[project]
name = "an-app"
version = "1.0.0"

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "an_app_of_the_test:apps.server"
clientapp = "an_app_of_the_test:client"

[tool.flwr.app.config]
lr = 0.1
name = "plain"
flag = false

[tool.flwr.app.config.model]
depth = 3
"""
MODULE = """
from types import SimpleNamespace
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

apps, client, number = SimpleNamespace(server=ServerApp()), ClientApp(), 3
"""
DEFAULTS: dict[str, bool | int | float | str] = {
    "lr": 0.1,
    "name": "plain",
    "flag": False,
    "model.depth": 3,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an app, whose traces in this process vanish after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "an_app_of_the_test", sys)
    del sys.modules["an_app_of_the_test"]  # and again when the test is over
    (tmp_path / "an_app_of_the_test.py").write_text(MODULE, encoding="utf-8")
    return write(tmp_path, PROJECT)


def write(folder: Path, project: str) -> Path:
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    return folder


def test_nested_settings_are_joined_with_dots(folder: Path) -> None:
    found = read_app_folder(folder)
    assert dict(found.run_config) == DEFAULTS
    assert found.num_clients is None
    assert found.path == folder


def test_both_apps_are_loaded_by_module_and_attribute(folder: Path) -> None:
    server_app, client_app = load_apps(read_app_folder(folder))
    assert isinstance(server_app, ServerApp)
    assert isinstance(client_app, ClientApp)
    assert sys.path[0] == str(folder)


@pytest.mark.parametrize(
    ("federations", "expected"),
    [
        (
            "default = 'b'\na.options.num-supernodes = 3\nb.options.num-supernodes = 7",
            7,
        ),
        ("a.options.num-supernodes = 3", 3),
        ("a.options.num-supernodes = 3\nb.options.num-supernodes = 7", None),
        ("default = 'a'\na.address = 'x'\nb.options.num-supernodes = 7", None),
    ],
)
def test_the_number_of_clients_is_that_of_the_default_federation(
    folder: Path, federations: str, expected: int | None
) -> None:
    write(folder, f"{PROJECT}\n[tool.flwr.federations]\n{federations}\n")
    assert read_app_folder(folder).num_clients == expected


@pytest.mark.parametrize(
    ("project", "message"),
    [
        ("x = [", "pyproject.toml: Invalid value"),
        ("[project]\nname = 'x'", 'Property "version" missing'),
        (PROJECT.replace("serverapp", "agentapp"), "serverapp: None"),
        (PROJECT.replace(":client", ""), "clientapp: Missing attribute"),
        (PROJECT.replace('"plain"', "[1]"), "The value for key name"),
        ("[tool.flwr]\napp = 3\n[project]", "pyproject.toml: "),
        (f"{PROJECT}[tool.flwr.federations]\na.options.num-supernodes = true", "True"),
    ],
)
def test_a_project_that_describes_no_app_is_refused_in_one_line(
    folder: Path, project: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_app_folder(write(folder, project))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder_and_no_project_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        read_app_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no pyproject.toml in"):
        read_app_folder(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "changed"),
    [
        ([], {}),
        (["lr=1 name='two words'"], {"lr": 1, "name": "two words"}),
        (["lr=2.5", 'name="x=y"  flag=true'], {"lr": 2.5, "name": "x=y", "flag": True}),
        (["model.depth=5"], {"model.depth": 5}),
    ],
)
def test_overrides_are_spelled_as_for_flower(
    overrides: list[str], changed: dict[str, object]
) -> None:
    assert override(DEFAULTS, overrides) == DEFAULTS | changed


def test_overrides_may_come_from_a_toml_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("lr = 0.5\n[model]\ndepth = 1\n", encoding="utf-8")
    expected = DEFAULTS | {"lr": 0.5, "model.depth": 1}
    assert override(DEFAULTS, [str(file)]) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["nam=1"], "no key 'nam'; did you mean 'name'?"),
        (["zzz=1"], "has flag, lr, model.depth, name"),
        (["lr='fast'"], "lr = 'fast' is text; its default 0.1 is a number"),
        (["flag=1"], "flag = 1 is a number; its default False is true or false"),
        (["name=true"], "name = True is true or false"),
        (["name=plain"], "text needs quotes"),
        (["lr = 1"], "'lr = 1' is not key=value"),
        (["quickly"], "'quickly' is not key=value"),
        (["nowhere.toml"], "nowhere.toml"),
        (["lr=1", "nowhere.toml"], "TOML files cannot be passed"),
        (["lr=[1]"], "The value for key lr"),
    ],
)
def test_an_override_that_cannot_be_is_refused(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=r"^run-config: ") as caught:
        override(DEFAULTS, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("nowhere_at_all:client", "there is no module 'nowhere_at_all'"),
        ("an_app_of_the_test:nobody", "'an_app_of_the_test' has no such attribute"),
        ("an_app_of_the_test:number", "this is a int, not a ClientApp"),
        ("an_app_of_the_test:apps.server", "this is a ServerApp, not a ClientApp"),
    ],
)
def test_a_component_that_is_no_app_is_refused(
    folder: Path, ref: str, reason: str
) -> None:
    write(folder, PROJECT.replace("an_app_of_the_test:client", ref))
    with pytest.raises(ConfigError) as caught:
        load_apps(read_app_folder(folder))
    assert f"[tool.flwr.app.components] clientapp: {ref!r}: " in str(caught.value)
    assert reason in str(caught.value)


def test_what_an_app_fails_to_import_is_the_apps_own_failure(folder: Path) -> None:
    text = textwrap.dedent("import a_library_that_nobody_has")
    (folder / "an_app_of_the_test.py").write_text(text, encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_nobody_has"):
        load_apps(read_app_folder(folder))
