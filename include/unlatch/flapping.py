"""A guest that keeps dying must not fill the ticket system: so many incidents an hour, and people are told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from unlatch.errors import UnlatchError
from unlatch.models import Json, Policy
from unlatch.ports import Alerts, Store

HOUR = timedelta(hours=1)

KEPT_FOR = timedelta(days=2)
"""How long it is remembered that a guest kept dying: longer than a death is asked about."""

_FLAPPING = "flapping"

_log = logging.getLogger(__name__)


class Asked(Protocol):
    """A death that wants an incident."""

    @property
    def incident(self) -> str:
        """The incident's id."""

    @property
    def guest(self) -> str:
        """Who died."""

    @property
    def crashed_at(self) -> datetime:
        """When."""


AskedT = TypeVar("AskedT", bound=Asked)


def openable(unopened: Iterable[AskedT], store: Store, policy: Policy, alerts: Alerts, *, now: datetime) -> set[str]:
    """The incidents that may be opened; of a guest that keeps dying only `incidents_per_guest_hour`.

    What there is no room for belongs to the guest's newest death, which is opened as soon as there is. People are told
    once an hour; whom nobody could tell is told at the next look.

    Args:
        unopened: Every death without an incident, oldest first.
        store: Incidents, and what was held before.
        policy: The limit.
        alerts: How people are told.
        now: The present moment.
    """
    opened = Counter(row.guest for row in store.incidents(200) if not row.dry_run and row.opened_at > now - HOUR)
    kept: Json = store.cursor(_FLAPPING) or {}
    flapping = {g: dict(of) for g, of in kept.items() if now - datetime.fromisoformat(of["newest"]) < KEPT_FOR}
    of_guest: dict[str, list[AskedT]] = {}
    for asked in unopened:
        held = flapping.get(asked.guest)
        if held is None or asked.crashed_at >= datetime.fromisoformat(held["newest"]):
            of_guest.setdefault(asked.guest, []).append(asked)
    allowed: set[str] = set()
    for guest, deaths in of_guest.items():
        room = policy.incidents_per_guest_hour - opened[guest]
        if len(deaths) <= room:
            allowed |= {asked.incident for asked in deaths}
            continue
        told = (flapping.get(guest) or {}).get("told")
        told = told if told and now - datetime.fromisoformat(told) < HOUR else None
        died = opened[guest] + len(deaths)
        flapping[guest] = {"newest": deaths[-1].crashed_at.isoformat(), "told": told, "died": died}
        allowed |= {deaths[-1].incident} if room > 0 else set()
    for guest, held in flapping.items():
        if held["told"] is None and _is_told(guest, held["died"], policy, alerts):
            held["told"] = now.isoformat()
    if flapping != kept:
        store.set_cursor(_FLAPPING, flapping)
    return allowed


def _is_told(guest: str, deaths: int, policy: Policy, alerts: Alerts) -> bool:
    words = (
        f"{guest} has died {deaths} times lately, and policy.incidents_per_guest_hour lets "
        f"{policy.incidents_per_guest_hour} incidents an hour be opened for one guest. The newest death gets one as "
        f"soon as there is room; find out why {guest} keeps dying, and keep it stopped until then."
    )
    try:
        alerts.alert(f"flapping:{guest}", f"{guest} keeps dying: its further deaths open no incidents", words)
    except (UnlatchError, OSError) as error:
        _log.warning("%s It could not be told, and will be told at the next look: %s", words, error)
        return False
    return True
