"""Code chosen by text: only from packages on the allow-list.

`strategy._target_`, `data.loader` and `model.builder` name code. A name that anybody
may write is a way to run anything, so the package must be on a list that only the
person who starts the program extends (`run.allow`, or the device's own configuration).
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from fedge.errors import ConfigError

ALLOWED_PACKAGES = ("strategies", "fedge", "flwr.serverapp.strategy")


def resolve(
    name: str,
    setting: str,
    *,
    allow: Sequence[str] = (),
    base: Sequence[str] = ALLOWED_PACKAGES,
) -> Callable[..., Any]:
    """Return the class or function called `name`.

    Args:
        name: "package.module.Name" or "package.module:name".
        setting: the setting that holds it, for messages.
        allow: packages that the person who starts the program trusts.
        base: packages that are always allowed. Empty where a server may choose the
            name: then nothing but what the device's owner listed can be called.

    Guarantee: what is returned was defined in an allowed package; being imported by a
    module of one is not enough.

    Raises:
        ConfigError: the package is not allowed (nothing was imported), there is no
            such module or name, or it was defined in a package that is not allowed.
    """
    module_name, _, attribute = name.replace(":", ".").rpartition(".")
    allowed = (*base, *allow)
    listed = ", ".join(allowed) or "none is"
    if not _is_within(module_name, allowed):
        raise ConfigError(
            f"{setting}: {name!r} is not in an allowed package ({listed}); "
            f"add its package to run.allow if you trust it"
        )
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"{setting}: cannot find {name!r}: {exc}") from exc
    if attribute.startswith("_") or not callable(found):
        raise ConfigError(f"{setting}: {name!r} is not a public class or function")
    home = getattr(found, "__module__", None)
    if not isinstance(home, str) or not _is_within(home, allowed):
        raise ConfigError(
            f"{setting}: {name!r} was defined in {home}, which is not in an allowed "
            f"package ({listed}); add it to run.allow if you trust it"
        )
    result: Callable[..., Any] = found
    return result


def _is_within(module_name: str, packages: Sequence[str]) -> bool:
    return any(
        module_name == package or module_name.startswith(package + ".")
        for package in packages
    )
