"""Ticket systems, one module each. A plug-in is a class: `PLUGIN(settings)` is a `ports.Ticketing`.

Its name is the module's and the word that the inventory writes as `site.ticketing`. Modules whose name begins with an
underscore are shared parts. What every ticket system owes beyond the port: `check()` says where tickets would go and
raises what writing would raise, without writing; making the object reads no connection and asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlatch.models.access import HttpAccess

STATES = ("open", "in progress", "waiting", "resolved", "closed")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class TicketAccess:
    """What the Airflow connection of a ticket system says.

    Attributes:
        conn_id: The connection's name, for errors.
        http: The server and who we are there.
        options: The connection's extra, without `verify`. It is kept out of logs: a site may have put secrets there.
    """

    conn_id: str
    http: HttpAccess
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class TicketSettings:
    """What wiring gives a ticket system.

    Attributes:
        directory: where systems that write files put them; the others keep a lock file there.
        now: the clock for the times in tickets.
        access: reads the Airflow connection of a system that is reached over HTTPS. It is called when a ticket is
            written or read and not before, since a wrong connection must not end a step that would only have told.
    """

    directory: Path
    now: Callable[[], datetime] = _utc_now
    access: Callable[[], TicketAccess] | None = None
