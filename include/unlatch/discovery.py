"""Finds plug-ins: every module of a plug-in package, loaded at start, so that a broken one is never met in a repair."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from unlatch.errors import ConfigError


def load_plugins(package_name: str) -> dict[str, ModuleType]:
    """All plug-ins of a package by name: its modules, each with a `PLUGIN` that has a `name`.

    Modules whose name begins with an underscore are what plug-ins share, not plug-ins.

    Args:
        package_name: for instance `unlatch.engines`.

    Raises:
        ConfigError: the package or a module cannot be imported, a module has no plug-in, or two have the same name.
    """
    package = _imported(package_name)
    found: dict[str, ModuleType] = {}
    for module_name in sorted(info.name for info in pkgutil.iter_modules(getattr(package, "__path__", ()))):
        if module_name.startswith("_"):
            continue
        module = _imported(f"{package_name}.{module_name}")
        name = getattr(getattr(module, "PLUGIN", None), "name", None)
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{module.__name__} ({module.__file__}) is no plug-in: it has no PLUGIN with a name.",
                next_step="add one, as the other modules of that package have, or begin the file's name with '_'.",
            )
        if name in found:
            raise ConfigError(
                f"{module.__name__} and {found[name].__name__} are both called {name!r}.",
                next_step="give one of the two another PLUGIN.name.",
            )
        found[name] = module
    return found


@functools.lru_cache(maxsize=1)
def crash_sources() -> Mapping[str, Any]:
    """All installed log formats by name."""
    return {name: module.PLUGIN for name, module in load_plugins("unlatch.crash_sources").items()}


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a module does while it is imported: none of it may go unnoticed
        raise ConfigError(
            f"{name} cannot be imported: {type(error).__name__}: {error}.",
            next_step="install what it needs, correct it, or remove the file.",
        ) from error
