"""Ways to ask a NAS for its locks and to have it drop them, one module each.

A plug-in is a class: `PLUGIN(access)` is a `ports.LockClearer` for one volume, where `access` is what this module
describes. Its name is the module's and the word that the inventory writes as `volumes.X.clearer`. Modules whose name
begins with an underscore are shared parts.

What every lock clearer owes:

* `list` changes nothing, and leaves no lock out: an entry that it does not understand is an error, never skipped.
* What the NAS does not tell stays None. A guess here would make a living server look like a dead one.
* `clear` frees what it is given and no more than `reach` says; whom it would hit is for the caller to have found out.
* A missing privilege is a `ConfigError` whose `next_step` is the exact grant; a NAS that is out of reach or busy is a
  `TransientError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unlatch.models import Volume
from unlatch.models.access import HttpAccess
from unlatch.ports import CommandAnswer

__all__ = ["HttpAccess", "NasAccess", "RunOnNas"]

RunOnNas = Callable[[Sequence[str]], CommandAnswer]
"""Runs a program on the NAS as the connection's login user, and waits for it.

The answer's `output` is what the program printed; after a failure also what it complained about. Raises
`TransientError` (out of reach, too slow) and `ConfigError` (the connection is wrong; sudo refuses: then with the
sudoers line).
"""


@dataclass(frozen=True)
class NasAccess:
    """What wiring gives a lock clearer.

    Attributes:
        volume: The volume; `volume.nas` is how the NAS names it.
        run: A command on the NAS, over the SSH connection `unlatch_nas_<server>`.
        http: The same connection, where it is one of type http; None otherwise.
    """

    volume: Volume
    run: RunOnNas
    http: HttpAccess | None = None
