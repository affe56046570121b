"""Modules that are imported when they are first used.

From a zip file Python compiles every module anew at each start (see ``bytecode``), and loading one costs something too.
A verb needs a third of them, so the others wait: the controller asks a guest a dozen questions per verdict, each of
them a start of this program.
"""

import importlib
from typing import Any


class _Late:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def late(name: str) -> Any:
    """Stand in for the module ``unlatch_agent.NAME`` until something of it is asked for."""
    return _Late("unlatch_agent." + name)
