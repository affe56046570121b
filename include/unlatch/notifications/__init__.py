"""Ways to tell people, one module each. A plug-in is a function: `PLUGIN(receiver, title, words, marker)` tells once.

Its name is the module's and the word that the inventory writes as `notify.NAME.by`. Each goes through Airflow's own
provider and its connection, so that no secret is in the inventory. What it raises decides what follows:
`TransientError` is tried again soon, `ConfigError` when somebody has corrected what it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from unlatch.errors import ConfigError, TransientError, UnlatchError
from unlatch.models import Receiver

_TOO_MANY, _SERVER_ERROR = 429, 500
Sender = Callable[[Receiver, str, str, str], None]
"""Receiver, title (one line), words (plain text), and a marker that is the same when it is told again."""


@contextmanager
def plain_errors(receiver: Receiver, *, refused: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """What a provider raises, in the project's own words and without its own, which may hold a secret.

    Args:
        receiver: Who is told.
        refused: Errors of the network's kind that only a person can make good.

    Raises:
        TransientError: the network, or a server that is busy.
        ConfigError: everything else.
    """
    try:
        yield
    except UnlatchError:
        raise
    except Exception as error:
        said = f"{receiver.name} could not be told by {receiver.by}: {type(error).__name__}."
        network = isinstance(error, OSError) or isinstance(error.__context__, OSError) or _busy(error)
        if network and not isinstance(error, refused):
            following = "it is tried again; if it stays so, see whether that service answers."
            raise TransientError(said, next_step=following) from error
        raise ConfigError(
            said,
            next_step=f"see the Airflow connection {receiver.conn_id or 'of that provider'} and docs/notifications.md.",
        ) from error


def _busy(error: Exception) -> bool:
    """Whether a server has answered that it cannot now; providers say it in an attribute or in their words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = re.search(r"Status Code: (\d{3})", str(error))
    status = int(words[1]) if status is None and words else status
    return isinstance(status, int) and (status == _TOO_MANY or status >= _SERVER_ERROR)


def notifier(package: str, module: str, name: str) -> Any:
    """A class of an Airflow provider.

    Raises:
        ConfigError: the provider is not installed.
    """
    import importlib  # noqa: PLC0415  # only where somebody is told that way

    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"The package {package} is not installed, so nobody can be told that way.",
            next_step=f"pip install {package} where Airflow runs, or correct notify in the inventory.",
        ) from error
