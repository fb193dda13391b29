"""A Flower app as its author left it: a folder with a pyproject.toml.

What Flower's `flwr run` reads is read here by Flower's own functions: the components,
the run config and its overrides. Nothing is built, installed or migrated, and the file
is not changed. Stricter than Flower in two points: an override that is no `key=value`
is refused (Flower passes over it), and so is one of another type than its default.
"""

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
from flwr.clientapp import ClientApp
from flwr.common.config import (
    flatten_dict,
    fuse_dicts,
    get_project_config,
    parse_config_args,
)
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app, validate

from fedge.errors import ConfigError

Value = bool | int | float | str
App = TypeVar("App", ServerApp, ClientApp)

_COMPONENTS = "[tool.flwr.app.components]"
_RUN_CONFIG = "[tool.flwr.app.config]"
# How Flower finds the pairs in a text; what is left over it does not look at.
_PAIR = re.compile(r"""\S+?=('[^']*'|"[^"]*"|\S+)""")


@dataclass(frozen=True, slots=True)
class AppFolder:
    """What an app says about itself.

    Attributes:
        path: the folder, absolute.
        server_ref, client_ref: where the apps are, `module:attribute`.
        run_config: defaults by key; nested tables are joined with dots.
        num_clients: of the app's own federation; None if it has none.
    """

    path: Path
    server_ref: str
    client_ref: str
    run_config: Mapping[str, Value]
    num_clients: int | None


class _NotThereError(Exception):
    """An attribute of a module is missing."""


def read_app_folder(path: Path) -> AppFolder:
    """Read an app's pyproject.toml.

    Raises:
        ConfigError: there is no such folder or file, or it does not describe an app.
    """
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"app: {path} is not a folder; give a Flower app's folder")
    try:
        config = get_project_config(folder)
        flower = config["tool"]["flwr"]
        components = flower["app"]["components"]
        return AppFolder(
            folder,
            _ref(components, "serverapp"),
            _ref(components, "clientapp"),
            flatten_dict(flower["app"].get("config", {})),
            _num_clients(flower.get("federations", {})),
        )
    except FileNotFoundError as exc:
        raise ConfigError(
            f"app: no pyproject.toml in {folder}; give the folder that holds it"
        ) from exc
    except (ValueError, TypeError, AttributeError, OSError) as exc:
        raise ConfigError(f"app: {folder / 'pyproject.toml'}: {_line(exc)}") from exc


def override(
    run_config: Mapping[str, Value], overrides: Sequence[str]
) -> dict[str, Value]:
    """Return the run config with overrides, spelled as for `flwr run --run-config`.

    Args:
        run_config: the app's defaults.
        overrides: texts like `a=1 b="two"`, or one name of a TOML file.

    Raises:
        ConfigError: cannot be read, an unknown key, or a value of another type than
            the default.
    """
    for text in overrides:
        rest = "" if text.endswith(".toml") else _PAIR.sub(" ", text).strip()
        if rest:
            raise ConfigError(
                f"run-config: {rest!r} is not key=value; write it without blanks "
                f"around =, and text in quotes: lr=0.1 name='a b'"
            )
    try:
        found: dict[str, Value] = parse_config_args(list(overrides))
    except click.ClickException as exc:
        raise ConfigError(
            f"run-config: {' '.join(overrides)!r} is not TOML; text needs quotes: "
            f"lr=0.1 name='a b' flag=true"
        ) from exc
    except (ValueError, OSError) as exc:
        raise ConfigError(f"run-config: {_line(exc)}") from exc
    for key, value in found.items():
        _check_override(run_config, key, value)
    return fuse_dicts(dict(run_config), found)


def load_apps(folder: AppFolder) -> tuple[ServerApp, ClientApp]:
    """Import both apps, with their folder first on `sys.path`.

    Raises:
        ConfigError: a module or attribute is missing, or is no app.
        Exception: whatever the app's modules raise when they are imported.
    """
    sys.path.insert(0, str(folder.path))
    server_app = _load(folder, "serverapp", folder.server_ref, ServerApp)
    return server_app, _load(folder, "clientapp", folder.client_ref, ClientApp)


def _load(folder: AppFolder, name: str, ref: str, kind: type[App]) -> App:
    module = ref.partition(":")[0]
    try:
        app = load_app(ref, _NotThereError, folder.path)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            raise  # something that the app imports
        reason = f"there is no module {exc.name!r} in {folder.path}"
        raise _wrong(name, ref, reason) from None
    except _NotThereError:
        raise _wrong(name, ref, f"{module!r} has no such attribute") from None
    if not isinstance(app, kind):
        raise _wrong(
            name, ref, f"this is a {type(app).__name__}, not a {kind.__name__}"
        )
    return app


def _wrong(name: str, ref: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{_COMPONENTS} {name}: {ref!r}: {reason}; write module:attribute"
    )


def _ref(components: Mapping[str, object], name: str) -> str:
    ref = components.get(name)
    if not isinstance(ref, str):
        raise ValueError(f"{_COMPONENTS} {name}: {ref!r}; write module:attribute")  # noqa: TRY004
    is_valid, reason = validate(ref, check_module=False)
    if not is_valid:
        raise ValueError(f"{_COMPONENTS} {name}: {(reason or ref).splitlines()[0]}")
    return ref


def _num_clients(federations: Mapping[str, object]) -> int | None:
    """Return how many clients the default federation has, or the only one."""
    tables = {k: v for k, v in federations.items() if isinstance(v, Mapping)}
    default = federations.get("default")
    if isinstance(default, str) and default in tables:
        tables = {default: tables[default]}
    options = [table.get("options", {}) for table in tables.values()]
    found = [o["num-supernodes"] for o in options if "num-supernodes" in o]
    if len(found) != 1:
        return None
    if isinstance(found[0], bool) or not isinstance(found[0], int):
        raise ValueError(f"options.num-supernodes: {found[0]!r} is not a whole number")  # noqa: TRY004
    return found[0]


def _check_override(run_config: Mapping[str, Value], key: str, value: Value) -> None:
    if key not in run_config:
        near = difflib.get_close_matches(key, run_config, n=1)
        known = ", ".join(sorted(run_config)) or "nothing"
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"run-config: no key {key!r}; {hint}{_RUN_CONFIG} has {known}"
        )
    default = run_config[key]
    if _kind(value) != _kind(default):
        raise ConfigError(
            f"run-config: {key} = {value!r} is {_kind(value)}; its default "
            f"{default!r} is {_kind(default)}, give such a value"
        )


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"


def _line(exc: BaseException) -> str:
    """Return an error in one line; Flower's have several."""
    return " ".join(str(exc).split())
