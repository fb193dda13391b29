"""From the settings' `strategy` to an object: ours, a user's, or one of Flower's."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedge.config.targets import resolve
from fedge.errors import ConfigError
from fedge.strategy import Strategy

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def make_strategy(
    settings: Mapping[str, Any], *, allow: Sequence[str] = ()
) -> Strategy[Any]:
    """Return the strategy that `_target_` names, made with the other entries.

    Args:
        settings: `_target_` and the constructor's arguments.
        allow: further packages from which it may come.

    Raises:
        ConfigError: the package is not allowed, there is no such class, or it does not
            take these arguments.
    """
    arguments = dict(settings)
    target = arguments.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(
            f"strategy._target_: {target!r} is not a name; use one such as "
            f"strategies.fedavg.FedAvg"
        )
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            raise ConfigError(f"strategy.{name}: must be a plain value, not a mapping")
    factory = resolve(target, "strategy._target_", allow=allow)
    _check_arguments(factory, target, arguments)
    if _is_flowers(factory):
        from fedge.flower.adapter import FlowerStrategy

        return FlowerStrategy(factory, arguments)  # type: ignore[arg-type]  # checked
    made = _make(factory, target, arguments)
    if not all(callable(getattr(made, n, None)) for n in ("init", "apply", "local")):
        raise ConfigError(
            f"strategy._target_: {target} has no init, apply and local (see "
            f"fedge.strategy.Strategy), and is no strategy of Flower's either"
        )
    return made


def _make(
    factory: Callable[..., Any], target: str, arguments: Mapping[str, Any]
) -> Strategy[Any]:
    try:
        made: Strategy[Any] = factory(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"strategy: {target}: {exc}") from exc
    return made


def _is_flowers(factory: Callable[..., Any]) -> bool:
    return isinstance(factory, type) and any(
        base.__module__.startswith("flwr.serverapp.strategy.")
        for base in factory.__mro__
    )


def _check_arguments(
    factory: Callable[..., Any], target: str, arguments: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError as exc:
        raise ConfigError(f"strategy._target_: {target} is no strategy") from exc
    parameters = signature.parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in _NAMED]
    for name in arguments:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean strategy.{near[0]}?" if near else ""
        allowed = ", ".join(known) or "nothing"
        raise ConfigError(f"strategy.{name}: {target} takes {allowed}{hint}")
    try:
        signature.bind(**arguments)
    except TypeError as exc:
        raise ConfigError(f"strategy: {target}: {exc}") from exc
